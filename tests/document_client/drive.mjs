// Drives the strategy document's client through one story and prints what it was told, as one JSON document.
// Arguments: the client's module, the story's name, its parameters as JSON.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [module, story, parameters] = process.argv.slice(2);
const { baseUrl, directory, ...given } = JSON.parse(parameters);

// What the client says to its console is part of what it was told.
const said = { log: [], warn: [], error: [] };
for (const kind of Object.keys(said)) {
  console[kind] = (...words) => said[kind].push(words.map((word) => word?.message ?? String(word)).join(" "));
}

// What the document uses and leaves to its reader.
const environmentFile = (environment) => `${directory}/${environment}.env`;
globalThis.getEnvironmentUrl = () => baseUrl;
globalThis.writeEnvironmentFile = async (environment, values) => {
  const lines = Object.entries(values).map(([name, value]) => `${name}=${value}\n`);
  writeFileSync(environmentFile(environment), lines.join(""));
};
globalThis.readEnvironmentFile = async (environment) => {
  const file = environmentFile(environment);
  const lines = existsSync(file) ? readFileSync(file, "utf8").trim().split("\n") : [];
  return Object.fromEntries(lines.map((line) => line.split(/=(.*)/s).slice(0, 2)));
};

const { CiCdIntegration, ProductionTestDataManager, TestDataScope } = await import(pathToFileURL(module).href);

// The document's client asks for no pass; the browser under test needs one to see the run's rows.
const passOf = async (manager) => {
  const response = await fetch(`${baseUrl}/api/test/runs/${manager.getTestId()}/pass`, { method: "POST" });
  const { header, token } = await response.json();
  return { [header]: token };
};

const visit = async (builder, headers = {}) => {
  const response = await fetch(`${baseUrl}/marketplace/builders/${builder.id}`, { headers });
  return { status: response.status, showsTheName: (await response.text()).includes(builder.name) };
};

const stories = {
  async lifeCycle({ sessionTypes, options }) {
    const manager = new ProductionTestDataManager(baseUrl, options);
    await manager.initialize();
    const builders = [await manager.createTestBuilder(), await manager.createTestBuilder()];
    const defaultSessions = await manager.createSessionTypes(builders[0].id);
    const ownSessions = await manager.createSessionTypes(builders[1].id, sessionTypes);
    const clients = [await manager.createTestClient(), await manager.createTestClient()];
    const scenario = await manager.createBookingScenario();
    const paid = await manager.createBookingScenario({ status: "CONFIRMED", paymentStatus: "PAID" });
    const pass = await passOf(manager);
    const all = [...builders, scenario.entities.builder[0]];
    const pages = await Promise.all(all.map((builder) => visit(builder, pass)));
    const pagesOfOthers = await Promise.all(all.map((builder) => visit(builder)));
    await manager.cleanup();
    const pagesAfterwards = await Promise.all(builders.map((builder) => visit(builder, pass)));
    await manager.cleanup();
    return {
      testId: manager.getTestId(),
      builders, defaultSessions, ownSessions, clients, scenario, paid,
      pages, pagesOfOthers, pagesAfterwards,
      defaultScope: TestDataScope.EPHEMERAL,
    };
  },

  async named({ builder: options, client: clientOptions }) {
    const manager = new ProductionTestDataManager(baseUrl);
    await manager.initialize();
    const builder = await manager.createTestBuilder(options);
    const client = await manager.createTestClient(clientOptions);
    await manager.cleanup();
    return { builder, client };
  },

  async nothingMade() {
    const manager = new ProductionTestDataManager(baseUrl);
    await manager.initialize();
    await manager.cleanup();
    return { testId: manager.getTestId() };
  },

  async sideBySide() {
    const managers = [new ProductionTestDataManager(baseUrl), new ProductionTestDataManager(baseUrl)];
    await Promise.all(managers.map((manager) => manager.initialize()));
    const made = await Promise.all(
      managers.map(async (manager) => {
        const builder = await manager.createTestBuilder();
        await manager.createSessionTypes(builder.id);
        await manager.createTestClient();
        return { builder, scenario: await manager.createBookingScenario() };
      }),
    );
    const [first, second] = managers;
    const passes = await Promise.all(managers.map(passOf));
    await first.cleanup();
    const pages = await Promise.all(made.map(({ builder }, index) => visit(builder, passes[index])));
    return { testIds: [first.getTestId(), second.getTestId()], made, pages };
  },

  async refused({ options }) {
    const manager = new ProductionTestDataManager(baseUrl);
    await manager.initialize();
    const builder = await manager.createTestBuilder({ name: "Kept" });
    const message = await manager.createTestBuilder(options).then(() => null, (error) => error.message);
    await manager.cleanup();
    return { message, builder };
  },

  async initializeOnly() {
    const manager = new ProductionTestDataManager(baseUrl);
    return { message: await manager.initialize().then(() => null, (error) => error.message) };
  },

  async prepareCi({ environment, buildId }) {
    await CiCdIntegration.prepareCiCdTestData(environment, buildId);
    return { variables: await readEnvironmentFile(environment) };
  },

  async cleanupCi({ environment, buildId }) {
    await CiCdIntegration.cleanupCiCdTestData(environment, buildId);
    return {};
  },
};

let answer;
try {
  answer = { ...(await stories[story](given)), said };
} catch (error) {
  answer = { thrown: error.message, said };
}
// The client's own timer would keep this process for an hour.
process.stdout.write(JSON.stringify(answer), () => process.exit(0));
