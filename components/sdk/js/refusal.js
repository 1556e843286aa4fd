// Converts refusals, which the bindings throw as plain values of the contract, into errors.

export class Refusal extends Error {
  constructor(kind, message) {
    super(message);
    this.name = "Refusal";
    this.kind = kind;
  }
}

export function throwRefusals(call) {
  return (...args) => {
    try {
      return call(...args);
    } catch (thrown) {
      const refusal = thrown?.payload ?? thrown;
      throw typeof refusal?.tag === "string" ? new Refusal(refusal.tag, refusal.val) : thrown;
    }
  };
}
