// The last order as programs send it; never with the key itself.
import { bodyOf } from "../../order/order.js";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const base = location.origin + document.documentElement.dataset.root;
const json = (value) => JSON.stringify(value);
const keywords = (fields) => Object.entries(fields).map(([name, value]) => `${name}=${json(value)}`).join(", ");

/** Functions of the order's body, by their tabs. */
export const SNIPPETS = {
	curl(body, { image, streamed, key }) {
		const accept = streamed ? " -N \\\n  -H 'Accept: text/event-stream'" : image ? " \\\n  -H 'Accept: image/png' -o picture.png" : "";
		const authorization = key ? ' \\\n  -H "Authorization: Bearer $KEY"' : "";
		return `curl ${base}/generate${accept} \\\n  -H 'Content-Type: application/json'${authorization} \\\n  -d ${quoted(json(body))}`;
	},

	fetch(body, { image, streamed, key }) {
		if (streamed) {
			const options = key ? `{ url: ${json(base)}, key: KEY }` : `{ url: ${json(base)} }`;
			return `import { stream } from "${base}/generate.js";

for await (const { event, data } of stream(${json(body)}, ${options})) {
  ${image ? 'if (event === "progress") console.log(data.step, data.of);' : 'if (event === "token") console.log(data.text);'}
}`;
		}
		const accept = image ? ', "Accept": "image/png"' : "";
		const authorization = key ? ', "Authorization": `Bearer ${KEY}`' : "";
		return `const answer = await fetch("${base}/generate", {
  method: "POST",
  headers: {"Content-Type": "application/json"${authorization}${accept}},
  body: JSON.stringify(${json(body)}),
});
const ${image ? "picture = await answer.blob()" : "{ text } = await answer.json()"};`;
	},

	Python(body, { image, streamed, key }) {
		const client = `Client("${base}"${key ? ', key=os.environ["KEY"]' : ""})`;
		const imports = `${key ? "import os\n\n" : ""}from shangcai import Client\n\nwith ${client} as client:\n    `;
		if (streamed) return `${imports}for event in client.stream(${keywords(body)}):\n        print(event)`;
		const call = `client.generate(${keywords(body)})`;
		return imports + (image ? `${call}.images[0].save("picture.png")` : `print(${call}.text)`);
	},

	OpenAI(body, { image, streamed, key }) {
		const { prompt, messages = [{ role: "user", content: prompt }], model, ...fields } = body;
		const head = `${key ? "import os\n\n" : ""}import openai\n\nclient = openai.OpenAI(base_url="${base}/v1", api_key=${key ? 'os.environ["KEY"]' : '"none"'})\n`;
		if (image) {
			const { size, n, ...others } = fields;
			const known = keywords({ model, prompt, ...(size && { size }), ...(n && { n }) });
			const extra = Object.keys(others).length ? `, extra_body=${json(others)}` : "";
			return `import base64\n${head}answer = client.images.generate(${known}${extra})\nopen("picture.png", "wb").write(base64.b64decode(answer.data[0].b64_json))`;
		}
		const call = `client.chat.completions.create(${keywords({ model, messages, ...fields })}${streamed ? ", stream=True" : ""})`;
		if (!streamed) return `${head}print(${call}.choices[0].message.content)`;
		return `${head}for chunk in ${call}:\n    print(chunk.choices[0].delta.content or "", end="")`;
	},
};

export function snippet(tab, order, options) {
	const { previews, ...body } = bodyOf(order);
	return SNIPPETS[tab](body, options);
}

const TOKENS = /("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)|\b(const|await|import|from|for|of|in|async|with|as|if|or)\b|(?<=\s)(--?[A-Za-z]\b)/g;

/** With its texts, words of the language and flags told apart. */
export function highlighted(code) {
	const parts = [];
	let at = 0;
	for (const match of code.matchAll(TOKENS)) {
		const span = document.createElement("span");
		span.className = match[1] ? "string" : match[2] ? "word" : "flag";
		span.textContent = match[0];
		parts.push(code.slice(at, match.index), span);
		at = match.index + match[0].length;
	}
	return [...parts, code.slice(at)];
}
