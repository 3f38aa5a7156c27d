import type { components } from "./schema.js";

/** The server said no: `code` is stable, the message is the server's own. */
export class TestDataError extends Error {
  override readonly name: string = "TestDataError";

  constructor(
    message: string,
    readonly code: string,
    /** Of HTTP; 0 where no answer came. */
    readonly status: number,
    readonly details: Record<string, string[]> = {},
  ) {
    super(message);
  }
}

/** A clean-up that had to leave something: `receipt.quarantined` says what, and what holds it. */
export class Residue extends TestDataError {
  override readonly name = "Residue";

  constructor(
    message: string,
    status: number,
    readonly receipt: components["schemas"]["Receipt"],
  ) {
    super(message, "residue", status);
  }
}
