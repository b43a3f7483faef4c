// What there is to do while an order runs.
export * as line from "./line.js";
export * as notice from "./notice.js";
