// The server's addresses: see /openapi.json.
import { events } from "./eventstream.js";
import { credentials, renew } from "./key.js";

/** A problem document. Any other error of a call is a broken connection. */
export class ProblemError extends Error {
	constructor(problem) {
		super(problem.title);
		this.problem = problem;
	}

	get slug() {
		return this.problem.type.slice(this.problem.type.lastIndexOf(":") + 1);
	}
}

/** `begun`: whether the user has just done what this is for, and so may be asked for a key. */
async function call(path, { begun = false, headers, ...options } = {}) {
	const sent = credentials();
	const response = await fetch(document.documentElement.dataset.root + path, { cache: "no-store", ...options, headers: { ...headers, ...sent } });
	if (response.ok) return response;
	if (response.status === 401 && (await renew(sent.Authorization, begun))) return call(path, { begun, headers, ...options });
	if (response.headers.get("Content-Type")?.startsWith("application/problem+json")) {
		throw new ProblemError(await response.json());
	}
	throw new Error(`${response.status} from a gateway`);
}

const json = (body) => ({
	method: "POST",
	body: JSON.stringify(body),
	headers: { "Content-Type": "application/json", Accept: "application/json" },
});

/** The id of the job of this key, which is made once only. */
export async function submit(order, key, signal) {
	const request = json(order);
	Object.assign(request.headers, { Prefer: "respond-async", "Idempotency-Key": key });
	const response = await call("/generate", { ...request, begun: true, signal });
	return response.headers.get("Location").split("/").pop();
}

/** The events of a job that came after the event `after`, and new ones as they come. */
export async function* watch(id, after, signal) {
	const headers = { Accept: "text/event-stream" };
	if (after) headers["Last-Event-ID"] = after;
	const response = await call(`/generations/${id}`, { headers, signal });
	if (response.status !== 204) {
		yield* events(response);
		return;
	}
	const job = await (await call(`/generations/${id}`, { headers: { Accept: "application/json" }, signal })).json();
	yield job.result ? { name: "result", data: job.result } : { name: "error", data: job.error };
}

export const cancel = (id) => call(`/generations/${id}`, { method: "DELETE" });

export const warm = (model) => call("/warm", json({ model })).then((response) => response.json());

export const statuses = () => call("/status").then((response) => response.json()).then((document) => document.models);
