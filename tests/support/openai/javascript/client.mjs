// The official client for JavaScript, for probes: reads {"method", "arguments"} a line, and prints what came of it.
// `url` is the first argument; the client's other settings are its defaults. See tests/support/openai/probe.py.
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import OpenAI, { APIError, toFile } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const [url] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: "none" });
const Trip = z.object({ city: z.enum(["杭州", "苏州"]), days: z.number().int().min(1).max(9) });
const IDS = { "responses.inputItems.list": "responseID", "chat.completions.messages.list": "completionID" };
const BY_ID = /^(responses\.(retrieve|delete|cancel)|chat\.completions\.(retrieve|update|delete)|models\.(retrieve|delete))$/;

async function typed(value) {
  if (Array.isArray(value)) return Promise.all(value.map(typed));
  if (value === null || typeof value !== "object") return value;
  if ("$file" in value) return toFile(readFileSync(value.$file), value.$file, { type: "image/png" });
  if ("$trip" in value) return value.$trip === "text" ? zodTextFormat(Trip, "trip") : zodResponseFormat(Trip, "trip");
  if ("$function" in value) {
    const run = () => "{}";
    return { ...value.$function, function: { ...value.$function.function, function: run, parse: JSON.parse } };
  }
  return Object.fromEntries(await Promise.all(Object.entries(value).map(async ([name, one]) => [name, await typed(one)])));
}

async function call(method, { extra_headers, extra_query, extra_body, timeout, ...body }) {
  const path = method.split(".");
  const name = path.pop();
  const resource = path.reduce((found, part) => found[part], client);
  const idName = IDS[method] ?? (BY_ID.test(method) ? Object.keys(body).find((one) => /ID$|^model$/.test(one)) : undefined);
  const options = Object.fromEntries(
    Object.entries({ headers: extra_headers, query: extra_query, timeout: timeout && timeout * 1000 }).filter(([, one]) => one),
  );
  const rest = await typed({ ...body, ...extra_body });
  let called;
  if (idName) {
    const { [idName]: id, ...query } = rest;
    called = Object.keys(query).length ? resource[name](id, query) : resource[name](id);
  } else if (Object.keys(body).length) called = resource[name](rest, options);
  else called = resource[name]();
  if (typeof called.finalChatCompletion === "function" && name === "runTools") {
    await called.done();
    return { choices: [{ message: called.messages.findLast((one) => one.role === "assistant") }] };
  }
  const answer = await called;
  if (answer && typeof answer[Symbol.asyncIterator] === "function" && !("data" in answer)) {
    const events = [];
    for await (const event of answer) events.push(event);
    return events;
  }
  return answer && "data" in answer && !answer.object && !answer.created ? { data: answer.data } : (answer ?? {});
}

for await (const line of createInterface({ input: process.stdin })) {
  const { method, arguments: given } = JSON.parse(line);
  let outcome;
  try {
    outcome = { answer: await call(method, given) };
  } catch (error) {
    outcome =
      error instanceof APIError
        ? { error: { status: error.status, param: error.param, code: error.code, message: error.message } }
        : { failure: String(error.stack ?? error) };
  }
  console.log(JSON.stringify(outcome));
}
