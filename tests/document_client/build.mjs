// Strips the types from TypeScript on standard input and writes plain JavaScript to standard output.
// Arguments: the directory of the `typescript` package.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const ts = createRequire(import.meta.url)(process.argv[2]);
const { outputText, diagnostics } = ts.transpileModule(readFileSync(0, "utf8"), {
  reportDiagnostics: true,
  compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
});
for (const each of diagnostics) console.error(ts.flattenDiagnosticMessageText(each.messageText, "\n"));
if (diagnostics.length) process.exit(1);
process.stdout.write(outputText);
