// A program of a web developer, on types generated from our OpenAPI document. Prints what it was answered.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.d.ts";

type Result = components["schemas"]["Result"];
type ServerSentEvent = components["schemas"]["ServerSentEvent"];

const client = createClient<paths>({ baseUrl: process.argv[2] });

function shown(result: Result): string {
  return result.kind === "text" ? result.text : result.images.map((picture) => picture.media_type).join(" ");
}

function told(event: ServerSentEvent): string {
  switch (event.event) {
    case "status":
      return event.data.state;
    case "token":
    case "reasoning":
      return event.data.text;
    case "progress":
      return `${event.data.step}/${event.data.of}`;
    case "preview":
      return event.data.media_type;
    case "result":
      return shown(event.data);
    case "error":
      return event.data.detail;
  }
}

async function generated(body: components["schemas"]["GenerationRequest"]): Promise<string> {
  const { data, error } = await client.POST("/generate", { body });
  if (error) return `${error.status} ${error.type}: ${error.detail}`;
  if (typeof data === "string" || "event" in data) throw new Error("a file or a stream was not asked for");
  return "state" in data ? data.id : shown(data);
}

async function streamed(prompt: string): Promise<string[]> {
  const { response } = await client.POST("/generate", { body: { prompt, stream: true }, parseAs: "stream" });
  return (await response.text())
    .split("\n\n")
    .map((block) => Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s).slice(0, 2))))
    .filter((fields) => "event" in fields)
    .map((fields) => told({ event: fields.event, data: JSON.parse(fields.data) } as ServerSentEvent));
}

async function job(prompt: string): Promise<string> {
  const made = await client.POST("/generate", { body: { prompt }, params: { header: { Prefer: "respond-async" } } });
  if (typeof made.data !== "object" || !("state" in made.data)) throw new Error(`no job: ${made.response.status}`);
  const id = made.data.id;
  for (let attempt = 0; attempt < 600; attempt++) {
    const { data } = await client.GET("/generations/{id}", { params: { path: { id } } });
    if (typeof data === "object" && "result" in data && data.result) return shown(data.result);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error("the job did not end");
}

console.log(
  JSON.stringify({
    text: await generated({ prompt: "春" }),
    picture: await generated({ prompt: "a cat", kind: "image" }),
    refused: await generated({ prompt: "春", max_tokens: 0 }),
    stream: await streamed("春"),
    job: await job("春"),
  }),
);
