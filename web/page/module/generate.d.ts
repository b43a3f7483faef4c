/** The fields of a request, as /openapi.json describes them: the server says which of them it does not take. */
export type Fields = {
	prompt?: string;
	model?: string;
	kind?: "text" | "image";
	/** Call `stream` instead. */
	stream?: never;
	[field: string]: unknown;
};

export interface Options {
	/** Address of the server; the one that this module comes from when left out. */
	url?: string;
	/** The caller's key or token, where the server tells its callers apart. */
	key?: string;
	/** Ends the call, and what it generates unless that is a job, with the signal's reason. */
	signal?: AbortSignal;
	/** Takes the place of the global `fetch`. */
	fetch?: typeof globalThis.fetch;
}

/** What is said of connections where a call may be repeated: of jobs and streams that resume. */
export interface Patience {
	/** Milliseconds without a word from the server after which the connection's error is thrown; a minute when left out. */
	patience?: number;
	/** Called before each further try, with what the last one has failed with. */
	onretry?: (error: Error) => void;
}

export interface TextResult {
	id: string;
	model: string;
	kind: "text";
	text: string;
	reasoning_content?: string;
	tool_calls?: ToolCall[];
	logprobs?: unknown[];
	finish_reason: string;
	usage: { prompt_tokens: number; completion_tokens: number };
	timing: { queue_s: number | null; first_token_s: number; total_s: number };
	system_fingerprint?: string;
}

export interface ToolCall {
	id: string;
	type: "function";
	function: { name: string; arguments: string };
}

export interface Picture {
	/** The file, in base64. */
	data: string;
	media_type: string;
	seed: number | null;
	width: number;
	height: number;
}

export interface PictureResult {
	id: string;
	model: string;
	kind: "image";
	images: Picture[];
	steps: number | null;
	understood: string[] | null;
	timing: { queue_s: number | null; total_s: number };
	system_fingerprint?: string;
}

export type Result = TextResult | PictureResult;

export interface Status {
	/** More states may come: ignore those that you do not know. */
	state: string;
	phase?: string;
	seconds?: number;
	expected_seconds?: number;
	position?: number;
	problem?: string;
	reason?: string;
	resumed?: boolean;
}

/** More events may come: ignore those that you do not know. The last one is the result; a failure is thrown. */
export type ServerSentEvent = { id: string | null } & (
	| { event: "status"; data: Status }
	| { event: "reasoning" | "token"; data: { text: string; logprobs?: unknown[] } }
	| { event: "tool_call"; data: { index: number; id?: string; name?: string; arguments: string } }
	| { event: "progress"; data: { step: number; of: number; eta_s: number | null } }
	| { event: "preview"; data: { image: number; step: number | null; data: string; media_type: string; width?: number; height?: number } }
	| { event: "result"; data: Result }
);

/** The document of a job. */
export interface JobStatus {
	id: string;
	state: "queued" | "running" | "completed" | "failed" | "cancelled";
	model: string;
	kind: "text" | "image";
	position?: number;
	expected_seconds?: number;
	created_at: string;
	started_at?: string;
	ended_at?: string;
	deadline_at: string;
	result?: Result;
	error?: Problem;
}

/** An RFC 9457 document. */
export interface Problem {
	type: string;
	title: string;
	status: number;
	detail: string;
	errors?: { field: string; detail: string }[];
	/** Seconds. */
	retry_after?: number;
	[member: string]: unknown;
}

export interface ModelStatus {
	name: string;
	kind: "text" | "image";
	state: string;
	[member: string]: unknown;
}

/** A served model, and what is known of it. Texts are by their languages. */
export interface DescribedModel {
	name: string;
	kind: "text" | "image";
	/** What it is good for, in one line. */
	summary?: Record<string, string>;
	/** Of the prompts that it understands. */
	languages?: string[];
	/** Prompts to try it with. */
	examples?: Record<string, string[]>;
	/** The things that it knows, where it knows no others. */
	vocabulary?: Record<string, string[]>;
	/** Whether it is made to go on with `messages`. */
	conversations?: boolean;
	/** An SPDX expression. */
	license?: string;
	/** Fields of a request of its kind that it does not take. */
	refuses?: string[];
	limits?: ModelLimits;
	defaults?: FieldDefaults;
	[member: string]: unknown;
}

export interface ModelLimits {
	prompt_chars?: number;
	max_tokens?: number;
	context_tokens?: number;
	steps?: number;
	size?: SizeLimits;
}

/** Of pictures: those in `only`, or else sides that are multiples of `multiple`, at most `side` long, and of at most
 * `pixels` together. */
export interface SizeLimits {
	multiple: number;
	side: number;
	pixels: number;
	only?: string[];
}

/** What is taken where a request leaves it out. */
export interface FieldDefaults {
	max_tokens?: number;
	temperature?: number;
	top_p?: number;
	size?: string;
	steps?: number;
	guidance?: number;
}

export interface DescribedModels {
	/** In the order in which they are served. */
	models: DescribedModel[];
	/** What a request goes to that names none, says no kind and fits no other. */
	default_model: string;
}

/** What is refused, or what a generation ends with. Any other error of a call is one of its connection. */
export class ProblemError extends Error {
	constructor(problem: Problem);
	readonly problem: Problem;
	/** The end of the problem's type, such as `invalid-field`. */
	readonly slug: string;
}

/** A generation that outlives its connection. */
export interface Job {
	readonly id: string;
	/** Of the last event that `events` has given: what a later program goes on after. */
	lastEventId: string | null;
	status(options?: Options): Promise<JobStatus>;
	/** Its events so far, or those after the one of the id `after`, and the coming ones, through broken connections. After
	 * a `status` of `queued` all of it comes anew. */
	events(options?: Options & Patience & { after?: string | null }): AsyncGenerator<ServerSentEvent, void, void>;
	wait(options?: Options & Patience): Promise<Result>;
	/** End it at its next token or step; forget it, if it has ended. */
	cancel(options?: Options & Patience): Promise<void>;
}

export function generate(request: Fields & { kind: "text" }, options?: Options): Promise<TextResult>;
export function generate(request: Fields & { kind: "image" }, options?: Options): Promise<PictureResult>;
export function generate(request: string | Fields, options?: Options): Promise<Result>;

/** Leaving the loop cancels the generation. With `resume` it goes on after a broken connection, as a job that is
 * forgotten in the end; `diverged` is thrown where that had to be begun again and goes another way. */
export function stream(
	request: string | Fields,
	options?: Options & Patience & { resume?: boolean },
): AsyncGenerator<ServerSentEvent, void, void>;

/** A job, which goes on without this program. One key makes one job, however often it is submitted. */
export function submit(
	request: string | Fields,
	options?: Options & Patience & { idempotencyKey?: string },
): Promise<Job>;

/** The job of this id, whichever program of this caller has submitted it. */
export function job(id: string, options?: Options): Job;

/** Which models are served, and what is known of each. None is woken for it. */
export function models(options?: Options): Promise<DescribedModels>;

/** Which models are awake. */
export function status(options?: Options): Promise<ModelStatus[]>;

/** Wake a model, or the default one. */
export function warm(model?: string, options?: Options): Promise<ModelStatus>;

/** A key for `submit` that nobody guesses. */
export function randomKey(): string;
