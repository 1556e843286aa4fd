/** The error that capabilities throw when the host refuses a call. */
export class Refusal extends Error {
  /**
   * `unavailable`: the requested model or page does not exist. `exhausted`: the tenant's quota is exhausted. `invalid`: an argument is
   * outside its limits. `failed`: the host tried and failed.
   */
  kind: "unavailable" | "exhausted" | "invalid" | "failed";
}
