// Clients of node, each asking as its documentation shows. Lines of JSON enter and leave, as in tests/clients/process.py; the
// name "" asks for the names and their models.
import { createInterface } from "node:readline";
import OpenAI from "openai";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, generateObject, generateText, jsonSchema, streamText } from "ai";

const [CHAT, EMBEDS] = ["tiny-llama", "minilm"];
const FRANCE = "What is the capital of France?";
const PARIS = "The capital of France is Paris.";
const messages = [{ role: "user", content: FRANCE }];
const city = { type: "object", properties: { city: { type: "string", maxLength: 20 }, capital: { type: "boolean" } },
  required: ["city", "capital"], additionalProperties: false };

const paris = text => {
  if (text !== PARIS) throw new Error(`another answer: ${text}`);
  return text;
};
const openai = at => new OpenAI({ baseURL: `${at.http}/v1`, apiKey: "none" });
const compatible = at => createOpenAICompatible({ name: "modelium", baseURL: `${at.http}/v1`, supportsStructuredOutputs: true });

const CLIENTS = {
  "openai (node) chat": [CHAT, async at =>
    paris((await openai(at).chat.completions.create({ model: at.model, messages, temperature: 0 })).choices[0].message.content)],
  "openai (node) chat, streamed": [CHAT, async at => {
    let text = "";
    for await (const chunk of await openai(at).chat.completions.create({ model: at.model, messages, temperature: 0, stream: true }))
      text += chunk.choices[0]?.delta?.content ?? "";
    return paris(text);
  }],
  "openai (node) responses": [CHAT, async at =>
    paris((await openai(at).responses.create({ model: at.model, input: FRANCE, temperature: 0 })).output_text)],
  "openai (node) embeddings": [EMBEDS, async at =>
    `${(await openai(at).embeddings.create({ model: at.model, input: "a cat" })).data[0].embedding.length} numbers`],
  "AI SDK generateText, @ai-sdk/openai": [CHAT, async at =>
    paris((await generateText({ model: createOpenAI({ baseURL: `${at.http}/v1`, apiKey: "none" })(at.model), prompt: FRANCE,
      temperature: 0 })).text)],
  "AI SDK generateText, openai-compatible": [CHAT, async at =>
    paris((await generateText({ model: compatible(at)(at.model), prompt: FRANCE, temperature: 0 })).text)],
  "AI SDK streamText, openai-compatible": [CHAT, async at => {
    let text = "", failed;
    const result = streamText({ model: compatible(at)(at.model), prompt: FRANCE, temperature: 0, onError: ({ error }) => { failed = error; } });
    for await (const piece of result.textStream) text += piece;
    if (failed) throw failed;
    return paris(text);
  }],
  "AI SDK generateObject, openai-compatible": [CHAT, async at =>
    JSON.stringify((await generateObject({ model: compatible(at)(at.model), prompt: "Tell me about Paris as JSON.",
      schema: jsonSchema(city), temperature: 0, maxOutputTokens: 80 })).object)],
  "AI SDK embed, openai-compatible": [EMBEDS, async at =>
    `${(await embed({ model: compatible(at).textEmbeddingModel(at.model), value: "a cat" })).embedding.length} numbers`],
};

// What a user would read: the error, those that it comes of, and what the server said.
const words = error => {
  const said = [];
  for (let each = error; each && said.length < 8; each = each.cause ?? each.lastError)
    said.push(String(each.message ?? each), each.responseBody ?? "");
  return said.filter(Boolean).join(" | ").slice(0, 600);
};

const answer = async ({ client, ...at }) => {
  if (client === "") return { seconds: 0, answer: JSON.stringify(Object.fromEntries(Object.entries(CLIENTS).map(([k, v]) => [k, v[0]]))) };
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  try {
    const said = await CLIENTS[client][1](at);
    return { seconds: seconds(), answer: String(said).slice(0, 80) };
  } catch (error) {
    return { seconds: seconds(), error: error?.name ?? "Error", words: words(error) };
  }
};

console.log = console.info = console.warn = console.error;  // what a library prints is no answer
for await (const line of createInterface({ input: process.stdin }))
  process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line)))}\n`);
