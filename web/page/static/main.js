// An order becomes a job, a job becomes a result, and results are kept.
import { blobOf } from "./browser/blob.js";
import { copyResult, copyText } from "./browser/carry.js";
import { always, tab } from "./browser/storage.js";
import { toast } from "./browser/toast.js";
import { About } from "./order/about.js";
import { OrderForm, randomSeed } from "./order/form.js";
import { Menu } from "./order/menu.js";
import { addressOf, after, shared } from "./order/order.js";
import { Gallery } from "./results/gallery.js";
import { Job } from "./server/job.js";
import { learn, modelOf } from "./server/models.js";
import { Stage } from "./stage/stage.js";
import { remember, speak, t } from "./texts/texts.js";

const element = (id) => document.getElementById(id);
const files = () => import("./on_demand/files.js");
let loading;
/** In the order of the calls. */
const meanwhile = () => (loading ??= import("./on_demand/meanwhile.js").finally(() => (loading = null)));

const form = element("order");
const prompt = element("prompt");
const menu = new Menu();
const orders = new OrderForm(menu);
const stage = new Stage(orders.label);
let job = null;

new About(menu, (example, now) => {
	prompt.value = example;
	prompt.focus();
	menu.warm();
	if (now) form.requestSubmit();
});

async function run(next) {
	if (job) {
		const { line } = await meanwhile();
		if (job) return line.add(next); // else it has ended
	}
	job = next;
	const { order } = job;
	const followed = job.id === null;
	stage.begin(order, menu.kindOf(order.model));
	meanwhile().then(({ notice }) => job === next && notice.begun(), () => {});
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
			result: (document) => serve(document, order, followed),
			lost: () => {
				stage.lost(true);
				menu.look();
			},
			found: () => stage.lost(false),
		});
		if (element("stage").hasAttribute("data-busy")) stage.stopped(); // given up here
	} catch (error) {
		end(error);
	} finally {
		job = null;
		menu.look();
		const { line, notice } = await meanwhile();
		if (!job) notice.ended();
		if (!job && element("line").children.length) run(line.next());
	}
}

/** Whoever asks from far below the stage sees what becomes of it. */
function ask(order) {
	const waits = job;
	run(new Job(order));
	if (waits) return;
	const { top } = element("stage").getBoundingClientRect();
	if (top < 0 || top > innerHeight / 2) element("stage").scrollIntoView();
	if (element("gallery").matches(":focus-within")) element("stop").focus({ preventScroll: true });
}

function end(error) {
	if (error.slug === "cancelled") return stage.stopped();
	stage.fail(error);
	const [wrong] = error.problem?.errors ?? [];
	if (wrong) orders.mark(wrong);
}

async function serve(answer, order, followed) {
	const result = {
		id: answer.id,
		at: Date.now(),
		model: answer.model,
		kind: answer.kind,
		order,
		...stage.times(answer, followed),
		text: answer.text,
		reasoning: answer.reasoning_content,
		finish: answer.finish_reason,
		tokens: answer.usage?.completion_tokens,
		steps: answer.steps,
		understood: answer.understood,
		pictures: answer.images?.map(({ data, media_type, width, height }) => ({ blob: blobOf(data, media_type), width, height })),
	};
	menu.tell(order.model, "ready");
	stage.done(result);
	meanwhile().then(({ notice }) => notice.served(order.prompt));
	if (!modelOf(order.model).summary) learn(); // it may have said meanwhile what it is
	if (order.history) {
		orders.converse(after(result));
		if (prompt.value === order.prompt) prompt.value = "";
	}
	await gallery.add(result);
}

function show(result) {
	if (job) return toast(t("busy"));
	const before = orders.written;
	stage.open(result);
	orders.fill(result.order);
	if (before.prompt && before.prompt !== result.order.prompt) toast(t("filled"), () => orders.fill(before));
	element("stage").scrollIntoView({ block: "nearest" });
}

const acts = {
	copy: copyResult,
	download: async (result) => (await files()).download(result),
	downloadAll: async (results) => (await files()).downloadAll(results),
	view: async (result) => (await import("./on_demand/dialogs/viewer.js")).view(result, gallery.results),
	again: ({ order }) => ask(order),
	another: ({ order }) => ask({ ...order, seed: randomSeed() }),
	share: ({ order }) => copyText(addressOf(order), t("shared")),
	reply: (result) => {
		menu.choose(result.order.model);
		orders.converse(after(result));
		prompt.value = "";
		prompt.focus();
	},
};

form.addEventListener("submit", (event) => {
	event.preventDefault();
	if (orders.check()) ask(orders.order);
});
form.addEventListener("input", () => prompt.value.trim() && menu.warm());
form.addEventListener("keydown", (event) => {
	if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) form.requestSubmit();
});
element("stop").addEventListener("click", () => {
	job?.stop();
	stage.stop();
});
element("retry").addEventListener("click", () => ask(stage.order));
element("actions").addEventListener("click", ({ target }) => acts[target.dataset.act]?.(stage.result));
addEventListener("unhandledrejection", ({ reason: { message } }) => {
	toast(/import/i.test(message) ? t("gone") : t("problem.unexpected", { detail: message })); // of a module
});
for (const id of ["upright", "actual"]) {
	const toggle = element(id);
	const set = (on) => {
		toggle.ariaPressed = on;
		element("stage").toggleAttribute(`data-${id}`, on);
		return on;
	};
	toggle.addEventListener("click", () => always.set(id, set(toggle.ariaPressed !== "true")));
	set(always.get(id) === "true");
}
element("language").addEventListener("click", async (event) => {
	event.preventDefault();
	await speak(t("other"));
	const address = new URL(location);
	address.searchParams.delete("lang");
	history.replaceState(null, "", address);
	element("language").lang = t("other");
});
element("theme").addEventListener("click", () => {
	const { dataset } = document.documentElement;
	const dark = dataset.theme === "auto" ? matchMedia("(prefers-color-scheme: dark)").matches : dataset.theme === "dark";
	remember("theme", (dataset.theme = dark ? "light" : "dark"));
});
if (/Mac|iP/.test(navigator.platform)) form.querySelector("kbd").textContent = "⌘ ↵";

const gallery = new Gallery({ ...acts, show });
gallery.open();
learn();
const asked = shared();
if (asked) orders.fill({ model: menu.model, ...asked });
const kept = Job.kept();
if (kept && menu.kindOf(kept.order.model)) {
	orders.fill({ ...kept.order, seed: "" });
	run(kept);
}
if (tab.read("line")?.length) {
	const { line } = await meanwhile();
	line.restore();
	if (!job) run(line.next());
}
