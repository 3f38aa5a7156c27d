import { randomUUID } from "node:crypto";

import type { APIRequestContext, APIResponse, BrowserContext, Page } from "@playwright/test";

import { Residue, TestDataError } from "./errors.js";
import type { components } from "./schema.js";

type Schemas = components["schemas"];
/** What a creating call takes, without what this client fills in. */
type Fields<Name extends keyof Schemas> = Omit<Partial<Schemas[Name]>, keyof Schemas["Frame"]>;
type Receipt = Schemas["Receipt"];

/** A user of the run: the key of the account, or a builder or client that has one. */
export type Account = string | { userId: string };

export interface RunOptions {
  /** The product's own address, as `https://shop.example`. */
  url: string;
  /** Where the product has mounted the API. */
  apiPath?: string;
  key?: string;
  /** Of a run to join; a new one where it is left out. */
  testId?: string;
  /** How long the run lives on where nobody renews it. */
  minutes?: number;
  label?: string;
  seed?: number;
}

const PREFIX = "stagehand_test_";
const ATTEMPTS = 4;
/** Answers that came before anything was done; so did `in_progress`, which only asks for patience. */
const COME_BACK = new Set([429, 503]);
const LONGEST_PAUSE = 20_000;

/** One test's run. What it answers is typed by the server's own OpenAPI. */
export class Run {
  readonly testId: string;
  seed = 0;
  expiresAt = "";

  readonly #api: APIRequestContext;
  readonly #base: string;
  readonly #options: RunOptions;
  #heartbeat: NodeJS.Timeout | undefined;

  constructor(api: APIRequestContext, options: RunOptions) {
    this.#api = api;
    this.#options = options;
    this.#base = new URL(options.apiPath ?? "/api/test/", options.url).href.replace(/\/*$/, "/");
    this.testId = options.testId ?? `${PREFIX}${randomUUID().replaceAll("-", "")}`;
  }

  /** Open the run or join it, and renew it while this process lives. */
  async open(): Promise<void> {
    const access = await this.#join();
    this.seed = access.seed;
    const minutes = this.#options.minutes ?? 5;
    this.#heartbeat ??= setInterval(() => void this.#join().catch(() => undefined), minutes * 20_000).unref();
  }

  async #join(): Promise<Schemas["Access"]> {
    const { minutes = 5, label, seed } = this.#options;
    const said = { maxAgeMinutes: minutes, ...(label && { label: label.slice(0, 200) }), ...(seed !== undefined && { seed }) };
    const access: Schemas["Access"] = await this.#send("POST", "verify-access", said);
    this.expiresAt = access.expiresAt;
    return access;
  }

  stopRenewing(): void {
    clearInterval(this.#heartbeat);
    this.#heartbeat = undefined;
  }

  // --- rows -----------------------------------------------------------------------------------------------

  /** A row of any registered type; `fields` are the model's own columns. */
  create(type: string, fields: Record<string, unknown> = {}): Promise<Schemas["Entity"]> {
    return this.#make(`entities/${encodeURIComponent(type)}`, { fields });
  }

  /** So many of them. */
  createMany(type: string, count: number, fields: Record<string, unknown> = {}): Promise<Schemas["Entity"][]> {
    return this.#make(`entities/${encodeURIComponent(type)}`, { count, fields });
  }

  builder(fields: Fields<"BuilderRequest"> = {}): Promise<Schemas["BuilderAnswer"]> {
    return this.#make("builders", fields);
  }

  client(fields: Fields<"ClientRequest"> = {}): Promise<Schemas["ClientAnswer"]> {
    return this.#make("clients", fields);
  }

  /** What the builder offers, in this order; an Initial Consultation where nothing is said. */
  sessionTypes(
    builder: string | { id: string },
    ...sessionTypes: Partial<Schemas["SessionTypeItem"]>[]
  ): Promise<Schemas["SessionTypeAnswer"][]> {
    return this.#make("session-types", { builderId: idOf(builder), sessionTypes });
  }

  /** A booking and whatever it needs. */
  bookingScenario(fields: Fields<"BookingRequest"> = {}): Promise<Schemas["BookingScenarioAnswer"]> {
    return this.#make("booking-scenarios", fields);
  }

  /** All rows of a registered scenario, as `marketplace`. */
  scenario(name: string, fields: Record<string, unknown> = {}): Promise<Schemas["ScenarioAnswer"]> {
    return this.#make(`scenarios/${encodeURIComponent(name)}`, fields);
  }

  // --- the browser ----------------------------------------------------------------------------------------

  /** What the browser context asks of the product is the run's from here on. */
  async carryPass(context: BrowserContext): Promise<void> {
    const pass: Schemas["Pass"] = await this.#send("POST", `${this.#path}/pass`, {});
    const { name, value } = pass.cookie;
    await context.addCookies([{ name, value, url: this.#options.url }]);
  }

  /** Sign the page in as a user of the run, without a password; it is at `next` then. */
  async signIn(page: Page, user: Account, next = "/"): Promise<void> {
    const userId = typeof user === "string" ? user : user.userId;
    // A link counts once: no second one is asked for by itself.
    const session: Schemas["Session"] = await this.#send("POST", `${this.#path}/sessions`, { userId, next }, 1);
    // An outside provider's own link knows nothing of the run's pass.
    if (session.identity) await page.context().addCookies(session.storageState.cookies);
    const answer = await page.goto(session.link);
    if (answer?.url() === session.link && !session.identity) {
      throw new TestDataError(`The sign-in link was answered with ${answer.status()}.`, "invalid_link", answer.status());
    }
  }

  // --- what there is --------------------------------------------------------------------------------------

  /** The run's inbox, the newest first; only what went to that address where one is given. */
  messages(to?: string): Promise<Schemas["Message"][]> {
    return this.#pages(`${this.#path}/messages`, to === undefined ? {} : { to });
  }

  /** The run's ledger; only those of a `type`, `state` or `origin` where it is given. */
  entities(wanted: { type?: string; state?: string; origin?: string } = {}): Promise<Schemas["Entry"][]> {
    return this.#pages(`${this.#path}/entities`, wanted);
  }

  /** Remove the whole run, which ends it. Throws Residue where something had to stay. */
  cleanup(): Promise<Receipt> {
    this.stopRenewing();
    return this.#send("POST", "cleanup", {});
  }

  // --- within ---------------------------------------------------------------------------------------------

  get #path(): string {
    return `runs/${this.testId}`;
  }

  /** With a key of its own, so that a call that is repeated has one effect. */
  #make<Answer>(path: string, body: object): Promise<Answer> {
    return this.#send("POST", path, body, ATTEMPTS, { "Idempotency-Key": randomUUID() });
  }

  async #pages<Row>(path: string, query: Record<string, string>): Promise<Row[]> {
    const found: Row[] = [];
    for (let page = 1; ; page += 1) {
      const asked = new URLSearchParams({ ...query, page: String(page), pageSize: "100" });
      const answer = await this.#send<{ results: Row[]; next: string | null }>("GET", `${path}?${asked}`);
      found.push(...answer.results);
      if (!answer.next) return found;
    }
  }

  async #send<Answer>(
    method: "GET" | "POST",
    path: string,
    body?: object,
    attempts = ATTEMPTS,
    more: Record<string, string> = {},
  ): Promise<Answer> {
    const { key } = this.#options;
    const headers = { "X-Test-ID": this.testId, ...(key && { Authorization: `Bearer ${key}` }), ...more };
    for (let attempt = 1; ; attempt += 1) {
      const last = attempt >= attempts;
      let pause = 200 * 2 ** attempt * (0.5 + Math.random());
      try {
        const answer = await this.#api.fetch(this.#base + path, { method, headers, ...(body && { data: body }) });
        if (answer.ok()) return (await answer.json()) as Answer;
        const refusal = await refusalOf(answer);
        if (last || !(COME_BACK.has(refusal.status) || refusal.code === "in_progress")) throw refusal;
        pause = Math.max(pause, Number(answer.headers()["retry-after"] ?? 0) * 1000);
        if (pause > LONGEST_PAUSE) throw refusal;
      } catch (error) {
        if (error instanceof TestDataError) throw error;
        if (last) throw new TestDataError(`${this.#base} cannot be reached: is the server up?`, "unreachable", 0);
      }
      await new Promise((done) => setTimeout(done, pause));
    }
  }
}

async function refusalOf(answer: APIResponse): Promise<TestDataError> {
  const said = (await answer.json().catch(() => ({}))) as Partial<Schemas["Residue"] & { details: Record<string, string[]> }>;
  const { code, message } = said;
  if (code === "residue") return new Residue(message ?? code, answer.status(), said as Receipt);
  if (!code || !message) {
    const text = `${answer.status()} instead of an answer of stagehand_testdata: is it mounted at ${new URL(answer.url()).pathname}?`;
    return new TestDataError(text, "unexpected_answer", answer.status());
  }
  return new TestDataError(message, code, answer.status(), said.details);
}

function idOf(row: string | { id: string }): string {
  return typeof row === "string" ? row : row.id;
}
