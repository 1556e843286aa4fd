// What the host throws when it does not do what it was asked for: a value of the contract, made an Error here.

export class Refusal extends Error {
  constructor(kind, message) {
    super(message);
    this.name = "Refusal";
    this.kind = kind;
  }
}

export function asking(ask) {
  return (...given) => {
    try {
      return ask(...given);
    } catch (thrown) {
      const refused = thrown?.payload ?? thrown;
      throw typeof refused?.tag === "string" ? new Refusal(refused.tag, refused.val) : thrown;
    }
  };
}
