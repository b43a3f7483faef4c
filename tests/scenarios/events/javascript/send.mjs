// Sends events to a sink with JavaScript's SDK, and prints the events of the answers. It runs in the folder where the
// SDK is installed; stdin is {"sink": URL, "mode": "binary" | "structured" | "batched", "events": [attributes and data]}.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { CloudEvent, HTTP, Mode, emitterFor, httpTransport } = createRequire(`${process.cwd()}/`)("cloudevents");
const { sink, mode, events } = JSON.parse(readFileSync(0, "utf8"));

const made = events.map((event) => new CloudEvent(event));
const transport = httpTransport(sink);
let messages;
if (mode === "batched") {
  // It reads batches, but has no function of its own that writes them.
  const headers = { "content-type": "application/cloudevents-batch+json; charset=utf-8" };
  messages = [await transport({ headers, body: JSON.stringify(made) })];
} else {
  const emit = emitterFor(transport, { mode: mode === "binary" ? Mode.BINARY : Mode.STRUCTURED });
  messages = await Promise.all(made.map((event) => emit(event)));
}
console.log(JSON.stringify(messages.flatMap((message) => HTTP.toEvent(message))));
