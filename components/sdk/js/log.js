// Writes lines to the job's component log. A job may write 1,000 lines of 1,000 characters.
import host from "weir:pipeline/log@0.1.0";

export const debug = (message) => host.write("debug", message);
export const info = (message) => host.write("info", message);
export const warn = (message) => host.write("warn", message);
export const error = (message) => host.write("error", message);
