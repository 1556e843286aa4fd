/**
 * A small key-value store for each tenant and pipeline that is kept between jobs. Granted as `state`. At most 1,000 keys of 256 bytes
 * with values of 64 KiB, 1 MiB in total. Each function throws a {@link Refusal} if the host refuses.
 */
export { Refusal } from "./refusal.js";

/** Returns a value, or `undefined` if the key is not set. */
export function get(key: string): Uint8Array | undefined;
/** Sets a value. Later reads in the same call see it. */
export function set(key: string, value: Uint8Array): void;
/** Deletes a key. */
export function remove(key: string): void;
