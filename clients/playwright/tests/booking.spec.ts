import { expect, Residue, test } from "../src/index.js";

const LISTING = "/marketplace/builders";

/** A week from now, as the form takes it. */
function nextWeek(): string {
  return new Date(Date.now() + 7 * 86_400_000).toISOString().slice(0, 16);
}

test("a client of the run books with its builder, and reads the confirmation", async ({ page, testdata }) => {
  const builder = await testdata.builder({ name: "Grace", expertise: ["COBOL"] });
  const [offer] = await testdata.sessionTypes(builder, { name: "First look", duration: 30, price: 40 });
  const client = await testdata.client({ name: "Zoe" });

  await testdata.signIn(page, client, LISTING);
  await expect(page.getByText(`Signed in as ${client.email}`)).toBeVisible();
  await page.getByRole("link", { name: builder.name }).click();
  await page.getByRole("combobox", { name: "Session" }).selectOption(offer!.id);
  await page.getByLabel("Start (UTC)").fill(nextWeek());
  await page.getByRole("button", { name: "Book" }).click();
  await expect(page.getByRole("heading", { name: "Booking received" })).toBeVisible();

  const [mail] = await testdata.messages(client.email);
  expect(mail?.subject).toBe(`Booking received: ${offer!.name}`);
  await page.goto(mail!.links[0]!);
  await expect(page.getByText(builder.name).first()).toBeVisible();
  expect((await testdata.entities({ origin: "captured" })).map((each) => each.type)).toContain("booking");
});

test("nobody else sees the run's builder", async ({ browser, page, testdata, baseURL }) => {
  const builder = await testdata.builder();
  const stranger = await browser.newPage({ baseURL: baseURL! });
  for (const [each, count] of [[page, 1], [stranger, 0]] as const) {
    await each.goto(LISTING);
    await expect(each.getByRole("link", { name: builder.name })).toHaveCount(count);
  }
});

test("what the server refuses has its code and its words", async ({ testdata }) => {
  await expect(testdata.create("nothing")).rejects.toMatchObject({ status: 404, code: "unknown_type" });
  await expect(testdata.builder({ email: "sam@gmail.com" })).rejects.toMatchObject({
    status: 400,
    details: { email: [expect.stringContaining("nobody can own")] },
  });
});

test("a run that is cleaned up takes no more rows, and twice is harmless", async ({ testdata }) => {
  await testdata.scenario("marketplace");
  expect((await testdata.cleanup()).remaining).toBe(0);
  expect((await testdata.cleanup()).remaining).toBe(0);
  await expect(testdata.builder()).rejects.toMatchObject({ code: "run_closed" });
  expect(Residue.prototype).toBeInstanceOf(Error);
});
