/**
 * A small key-value store for each tenant and pipeline, kept from job to job. Granted as `state`. At most 1,000 keys of 256
 * bytes with values of 64 KiB, 1 MiB in all. Each function throws a {@link Refusal} if it is refused.
 */
export { Refusal } from "./refusal.js";

/** A value; `undefined` if the key is not set. */
export function get(key: string): Uint8Array | undefined;
/** Sets a value; what is set is seen at once. */
export function set(key: string, value: Uint8Array): void;
/** Forgets a key. */
export function remove(key: string): void;
