// The Vercel AI SDK with its provider for OpenAI, told nothing but an address, the first argument: prints what its functions
// give, over chat completions and over responses.
import { createOpenAI } from "@ai-sdk/openai";
import { generateObject, generateText, streamText, tool } from "ai";
import { z } from "zod";

const openai = createOpenAI({ baseURL: process.argv[2], apiKey: "none" });
const Trip = z.object({ city: z.enum(["杭州", "苏州"]), days: z.number().int().min(1).max(9) });
const ONCE = { openai: { parallelToolCalls: false } };
const tools = { trip: tool({ description: "Plans a trip.", inputSchema: Trip }) };

async function streamed(model) {
  let text = "";
  const { textStream } = streamText({ model, prompt: "春雨", maxOutputTokens: 8, onError: ({ error }) => { throw error; } });
  for await (const piece of textStream) text += piece;
  return text;
}

async function all(poet, caller) {
  const written = await generateText({ model: poet, prompt: "春雨", maxOutputTokens: 8 });
  const object = await generateObject({ model: caller, schema: Trip, prompt: "春雨" });
  const called = await generateText({ model: caller, tools, toolChoice: "required", prompt: "春雨", providerOptions: ONCE });
  return {
    text: written.text,
    tokens: written.usage.totalTokens,
    streamed: await streamed(poet),
    object: object.object,
    calls: called.toolCalls.map(({ toolName, input }) => ({ toolName, input })),
  };
}

console.log(
  JSON.stringify({
    chat: await all(openai.chat("poet"), openai.chat("caller")),
    responses: await all(openai.responses("poet"), openai.responses("caller")),
  }),
);
