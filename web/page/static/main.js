// An order becomes a job, a job becomes a result, and results are kept.
import { copyResult, copyText, download } from "./results/carry.js";
import { Gallery } from "./results/gallery.js";
import { Job } from "./server/job.js";
import { Menu } from "./order/menu.js";
import { Stage, blobOf } from "./stage/stage.js";
import { remember, speak, t } from "./texts/texts.js";

const element = (id) => document.getElementById(id);
const PREVIEWS = 4;
const FIELDS = {
	text: { temperature: Number, max_tokens: Number },
	image: { steps: Number, size: String, negative_prompt: String },
};

const form = element("order");
const prompt = element("prompt");
const menu = new Menu();
const stage = new Stage();
let job = null;

/** What the form says. The seed is chosen here, so that it is known afterwards whatever the model is. */
function written() {
	const { kind, model } = menu;
	const order = { prompt: prompt.value, model };
	const typed = form.elements.seed.value.trim();
	order.seed = typed ? Number(typed) : randomSeed();
	for (const [name, type] of Object.entries(FIELDS[kind])) {
		const value = form.elements[name].value.trim();
		if (value) order[name] = type(value);
	}
	if (kind === "image") order.previews = PREVIEWS;
	return order;
}

const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

async function run(next) {
	if (job) return;
	job = next;
	const { order } = job;
	const kind = menu.kindOf(order.model);
	element("serve").setAttribute("aria-disabled", "true");
	stage.begin(order, kind);
	if (element("stage").getBoundingClientRect().top > innerHeight / 2) element("stage").scrollIntoView();
	try {
		await job.follow({
			status: (status) => {
				menu.tell(order.model, status.state === "running" ? "ready" : status.state);
				stage.status(status);
			},
			reasoning: (piece) => stage.reasoning(piece),
			token: (token) => stage.token(token),
			progress: (progress) => stage.progress(progress),
			preview: (preview) => stage.preview(preview),
			result: (document) => serve(document, order),
			lost: () => stage.lost(),
			found: () => stage.found(),
		});
		if (element("stage").hasAttribute("data-busy")) stage.stopped(); // given up here
	} catch (error) {
		end(error);
	} finally {
		job = null;
		element("serve").removeAttribute("aria-disabled");
	}
}

function end(error) {
	if (error.slug === "cancelled") stage.stopped();
	else stage.fail(error);
}

async function serve(document, order) {
	const result = {
		id: document.id,
		at: Date.now(),
		model: document.model,
		kind: document.kind,
		order,
		seconds: document.timing.total_s,
		text: document.text,
		reasoning: document.reasoning_content,
		finish: document.finish_reason,
		tokens: document.usage?.completion_tokens,
		steps: document.steps,
		understood: document.understood,
		pictures: document.images?.map(({ data, media_type, width, height }) => ({ blob: blobOf(data, media_type), width, height })),
	};
	menu.tell(order.model, "ready");
	stage.done(result);
	await gallery.add(result);
}

function show(result) {
	if (job) return;
	stage.open(result);
	element("stage").scrollIntoView({ block: "nearest" });
}

const acts = {
	copy: copyResult,
	download,
	again: ({ order }) => run(new Job(order)),
	another: ({ order }) => run(new Job({ ...order, seed: randomSeed() })),
};

form.noValidate = true; // browsers stumble over fields that are folded away, or another kind's
form.addEventListener("submit", (event) => {
	event.preventDefault();
	const fields = ["prompt", "seed", ...Object.keys(FIELDS[menu.kind])].map((name) => form.elements[name]);
	const wrong = fields.find((field) => !field.checkValidity());
	if (!wrong) run(new Job(written()));
	else {
		wrong.closest("details")?.setAttribute("open", "");
		wrong.reportValidity();
	}
});
form.addEventListener("input", () => prompt.value.trim() && menu.warm());
form.addEventListener("keydown", (event) => {
	if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) form.requestSubmit();
});
element("examples").addEventListener("click", ({ target }) => {
	if (target.type !== "button") return;
	prompt.value = target.textContent;
	prompt.focus();
	menu.warm();
});
element("stop").addEventListener("click", () => {
	job?.stop();
	stage.stop();
});
element("actions").addEventListener("click", ({ target }) => acts[target.dataset.act]?.(stage.result));
element("code").addEventListener("click", ({ target }) => {
	if (target.dataset.copy) copyText(element(target.dataset.copy).textContent);
});
element("language").addEventListener("click", (event) => {
	event.preventDefault();
	speak(t("other"));
	element("language").lang = t("other");
});
element("theme").addEventListener("click", () => {
	const root = document.documentElement;
	const dark = root.dataset.theme === "auto" ? matchMedia("(prefers-color-scheme: dark)").matches : root.dataset.theme === "dark";
	root.dataset.theme = dark ? "light" : "dark";
	remember("theme", root.dataset.theme);
});

const gallery = new Gallery({ ...acts, show });
gallery.open();
const kept = Job.kept();
if (kept && menu.kindOf(kept.order.model)) {
	menu.choose(kept.order.model);
	prompt.value = kept.order.prompt;
	run(kept);
}
