/**
 * A run of its own for each test, on the server that the page is tested against, and nothing left behind.
 *
 *     import { test, expect } from "stagehand-testdata-playwright";
 *
 *     test("books a session", async ({ page, testdata }) => {
 *       const { entities } = await testdata.bookingScenario({ status: "CONFIRMED" });
 *       await testdata.signIn(page, entities.client[0]);
 *       ...
 *     });
 *
 * Options, in `use` of the configuration: `testdataURL` (that of `baseURL` where it is left out),
 * `testdataKey` (STAGEHAND_TESTDATA_KEY where it is left out), `testdataKeep`, `testdataMinutes`.
 */
import { test as base, type TestInfo } from "@playwright/test";

import { Run } from "./run.js";

export { expect } from "@playwright/test";
export { Residue, TestDataError } from "./errors.js";
export { Run, type Account, type RunOptions } from "./run.js";
export type { components, paths } from "./schema.js";

export interface TestDataOptions {
  /** The product's own address, as `https://shop.example`; `baseURL` where it is left out. */
  testdataURL: string | undefined;
  /** The access key; STAGEHAND_TESTDATA_KEY where it is left out. */
  testdataKey: string | undefined;
  /** Leave the runs to their end, to look at what the test has left. */
  testdataKeep: boolean;
  /** How long a run lives on where nobody renews it: a runner that was killed leaks no longer. */
  testdataMinutes: number;
}

export interface TestDataFixtures {
  /** The test's own run. The browser context of the test carries its pass. */
  testdata: Run;
}

export const test = base.extend<TestDataOptions & TestDataFixtures>({
  testdataURL: [undefined, { option: true }],
  testdataKey: [undefined, { option: true }],
  testdataKeep: [false, { option: true }],
  testdataMinutes: [5, { option: true }],

  testdata: async ({ baseURL, playwright, testdataURL, testdataKey, testdataKeep, testdataMinutes }, use, info) => {
    const url = testdataURL ?? baseURL;
    if (!url) throw new Error("Neither `testdataURL` nor `baseURL` says where the product is.");
    const key = testdataKey ?? process.env["STAGEHAND_TESTDATA_KEY"];
    const api = await playwright.request.newContext();
    const run = new Run(api, { url, minutes: testdataMinutes, label: info.titlePath.join(" › "), ...(key ? { key } : {}) });
    try {
      await run.open();
      info.annotations.push({ type: "testdata", description: run.testId });
      await use(run);
    } finally {
      await end(run, info, testdataKeep);
      await api.dispose();
    }
  },

  context: async ({ context, testdata }, use) => {
    await testdata.carryPass(context);
    await use(context);
  },
});

/** A test that failed says how its values are drawn again; one that passed fails where anything is left. */
async function end(run: Run, info: TestInfo, keep: boolean): Promise<void> {
  const failed = info.status !== info.expectedStatus;
  if (failed) {
    const body = `run ${run.testId}, seed ${run.seed}: verify-access with this "seed" draws the same values`;
    await info.attach("testdata", { body, contentType: "text/plain" });
  }
  run.stopRenewing();
  if (keep) {
    console.log(`${run.testId} is kept until ${run.expiresAt}`);
    return;
  }
  try {
    await run.cleanup();
  } catch (error) {
    if (!failed) throw error;
    console.error(`${run.testId} could not be cleaned up: ${String(error)}`);
  }
}
