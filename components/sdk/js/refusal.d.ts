/** What the host throws when it does not do what it was asked for. */
export class Refusal extends Error {
  /**
   * `unavailable`: the host has no such thing. `exhausted`: the tenant's quota for it is used up. `invalid`: an argument is
   * outside its limits. `failed`: it was tried and did not work.
   */
  kind: "unavailable" | "exhausted" | "invalid" | "failed";
}
