import { defineConfig } from "@playwright/test";

import type { TestDataOptions } from "./src/index.js";

/** Against a demo product that answers at PRODUCT_URL, in Debian's Chromium. */
export default defineConfig<TestDataOptions>({
  testDir: "tests",
  forbidOnly: true,
  reporter: "list",
  use: {
    baseURL: process.env["PRODUCT_URL"] ?? "http://127.0.0.1:8000",
    launchOptions: { executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] },
  },
});
