"""The client for JavaScript in Node: results, streams, jobs, broken connections, signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.waiting import wait_until
from tests.support.web.served_web import PICTURE, ServedWeb

RunNode = Callable[[str], Any]

PRINT = "for await (const { event, data } of %s) if (event === 'token' || event === 'result') say(data.text);"


def test_a_text_a_picture_and_which_models_there_are(node: RunNode, served: ServedWeb) -> None:
    served.say("春", "雨", None)
    program = node(
        """
        say((await generate("春", { ...server, key: "a-key" })).text);
        const { images } = await generate({ prompt: "猫", kind: "image" }, server);
        say(Buffer.from(images[0].data, "base64").toString("latin1"));
        say((await warm("poet", server)).name);
        say((await status(server)).map(({ name }) => name));
        """
    )
    assert program.rest() == ["春雨", PICTURE.decode("latin1"), "poet", ["poet", "painter"]]
    assert served.relay.headers("Authorization") == ["Bearer a-key"]


def test_what_is_known_of_the_models(node: RunNode) -> None:
    program = node(
        """
        const asked = [];
        const note = (address, request) => (asked.push(request.cache), fetch(address, request));
        const found = await models({ ...server, fetch: note });
        say(found.models.map(({ name, kind }) => [name, kind]));
        say([found.default_model, found.models[0].limits.max_tokens]);
        await status({ ...server, fetch: note });
        say(asked);
        """
    )
    # Browsers ask with the ETag of what they have kept; how awake models are is new each time.
    rest = [[["poet", "text"], ["painter", "image"]], ["poet", 4096], ["no-cache", "no-store"]]
    assert program.rest() == rest


def test_a_stream(node: RunNode, served: ServedWeb) -> None:
    served.say("春", "雨", None)
    assert node(PRINT % "stream('春', server)").rest() == ["春", "雨", "春雨"]


def test_leaving_a_stream_cancels_it(node: RunNode, served: ServedWeb) -> None:
    for options in ("server", "{ ...server, resume: true }"):
        served.say("春")
        program = node(
            f"""
            for await (const {{ event, data }} of stream("春", {options})) if (event === "token") break;
            say("left");
            await new Promise((resolve) => process.stdin.once("data", resolve));
            """
        )
        assert program.next() == "left"
        wait_until(lambda: served.running == 0, "the slot is free")


def test_a_stream_goes_on_after_broken_connections(node: RunNode, served: ServedWeb) -> None:
    served.say("one ")
    program = node(PRINT % "stream('count', { ...server, resume: true, onretry: () => say('lost') })")
    assert program.next() == "one "
    served.cut()
    assert program.next() == "lost"
    served.say("two ")
    assert program.next() == "two "
    served.cut()
    served.say("three", None)
    assert program.rest() == ["lost", "three", "one two three"]
    assert len(served.asked) == 1
    assert len(served.relay.headers("Last-Event-ID")) == 2


def begun_again(events: str) -> str:
    return f"""
        const running = ["status", {{ state: "running" }}];
        const queued = ["status", {{ state: "queued" }}];
        const token = (text, ...logprobs) => ["token", {{ text, ...(logprobs.length && {{ logprobs }}) }}];
        const call = (more) => ["tool_call", {{ index: 0, id: "call_1", name: "now", arguments: '{{"in": ' + more }}];
        const frame = ([event, data], id) =>
            `id: ${{id}}-0\\nevent: ${{event}}\\ndata: ${{JSON.stringify(data)}}\\n\\n`;
        const log = [{events}].map(frame).join("");
        const fetch = async (_, {{ method }}) =>
            method === "POST" ? Response.json({{ id: "a" }}, {{ status: 202 }}) : new Response(method ? "" : log);
        const options = {{ ...server, fetch, resume: true }};
    """


def test_a_job_that_is_begun_again_gives_its_text_once(node: RunNode) -> None:
    first = 'running, ["reasoning", { text: "Hmm." }], call(""), token("春天", 1, 2), queued'
    second = 'running, ["reasoning", { text: "Hmm." }], call("1}"), token("春", 1.1), token("天来", 2, 3)'
    end = 'token("了", 4), ["result", { text: "春天来了", reasoning_content: "Hmm." }]'
    program = node(
        begun_again(f"{first}, {second}, {end}")
        + """
        for await (const { event, data } of stream("x", options)) if (event !== "status") say([event, data]);
        const pieces = [];
        for await (const { event, data } of job("a", options).events()) if (event === "token") pieces.push(data.text);
        say(pieces);
        """
    )
    assert program.rest() == [
        ["reasoning", {"text": "Hmm."}],
        ["tool_call", {"index": 0, "id": "call_1", "name": "now", "arguments": '{"in": '}],
        ["token", {"text": "春天", "logprobs": [1, 2]}],
        ["tool_call", {"index": 0, "arguments": "1}"}],
        ["token", {"text": "来", "logprobs": [3]}],
        ["token", {"text": "了", "logprobs": [4]}],
        ["result", {"text": "春天来了", "reasoning_content": "Hmm."}],
        ["春天", "春", "天来", "了"],
    ]


def test_a_job_that_goes_another_way_says_so(node: RunNode) -> None:
    for second in ('token("秋")', "running"):
        events = f'running, token("春天"), queued, {second}, ["result", {{ text: "秋" }}]'
        script = 'for await (const _ of stream("x", options)); throw new Error("it ended")'
        program = node(f"{begun_again(events)} try {{ {script} }} catch (error) {{ say(error.slug); }}")
        assert program.rest() == ["diverged"]


def test_a_stream_that_breaks_off_is_an_error(node: RunNode, served: ServedWeb) -> None:
    served.say("one ")
    read = PRINT % "stream('count', server)"
    program = node(f"try {{ {read} }} catch (error) {{ say(error instanceof ProblemError); }}")
    assert program.next() == "one "
    served.cut()
    assert program.rest() == [False]


def test_a_job_is_read_on_by_another_program(node: RunNode, served: ServedWeb) -> None:
    served.say("one ", "two ", None)
    program = node(
        """
        const made = await submit("count", server);
        for await (const { event } of made.events()) if (event === "token") break;
        say([made.id, made.lastEventId]);
        say((await made.wait()).text);
        say((await made.status()).state);
        """
    )
    id_, last = program.next()
    assert program.rest() == ["one two ", "completed"]
    later = node(
        f"""
        const later = job("{id_}", server);
        {PRINT % f'later.events({{ after: "{last}" }})'}
        {PRINT % "later.events({ after: later.lastEventId })"}
        await later.cancel();
        say(await later.status().catch(({{ slug }}) => slug));
        """
    )
    assert later.rest() == ["two ", "one two ", "one two ", "not-found"]


def test_a_job_is_cancelled(node: RunNode, served: ServedWeb) -> None:
    program = node(
        """
        const made = await submit("count", server);
        const end = made.wait().catch(({ slug }) => slug);
        for await (const { data } of made.events()) if (data.state === "running") break;
        await made.cancel();
        say(await end);
        say(await made.wait({ after: made.lastEventId }).catch(({ slug }) => slug));
        """
    )
    assert program.rest() == ["cancelled", "cancelled"]
    wait_until(lambda: served.running == 0)


def test_a_submission_whose_answer_is_lost_makes_one_job(node: RunNode, served: ServedWeb) -> None:
    served.relay.lose = 2
    served.say("春", None)
    program = node("say((await (await submit('春', { ...server, onretry: () => say('lost') })).wait()).text);")
    assert program.rest() == ["lost", "lost", "春"]
    keys = served.relay.headers("Idempotency-Key")
    assert (len(keys), len(set(keys))) == (3, 1)
    assert len(served.asked) == 1


def test_patience_has_an_end(node: RunNode, served: ServedWeb) -> None:
    served.relay.lose = 1
    program = node(
        "await submit('春', { ...server, patience: 0 }).catch((error) => say(error instanceof ProblemError));"
    )
    assert program.rest() == [False]
    program = node("await submit('春').catch(({ name, message }) => say([name, message]));")
    assert program.rest() == [["TypeError", "options.url is missing: the address of the server"]]


def test_what_is_refused_is_a_problem(node: RunNode, served: ServedWeb) -> None:
    program = node(
        """
        const told = (error) => error instanceof ProblemError && [error.slug, error.problem.status, error.message];
        const wrong = { prompt: "春", max_tokens: 0 };
        say(await generate(wrong, server).catch(told));
        say(await submit(wrong, server).catch(told));
        say(await stream(wrong, server).next().catch(told));
        say(await stream(wrong, { ...server, resume: true }).next().catch(told));
        say(await job("../x", server).wait().catch(({ slug }) => slug));
        """
    )
    refused = ["invalid-field", 400, "max_tokens: input should be greater than or equal to 1"]
    assert program.rest() == [refused, refused, refused, refused, "not-found"]


def test_a_signal_ends_each_call(node: RunNode, served: ServedWeb) -> None:
    served.say("one ")
    program = node(
        """
        const made = await submit("count", server);
        for await (const { event } of made.events()) if (event === "token") break;
        const reason = new Error("enough");
        const ends = async (act) => {
            const leave = new AbortController();
            const end = act({ ...server, signal: leave.signal }).catch((error) => error === reason);
            setTimeout(() => leave.abort(reason));
            say(await end);
        };
        await ends((options) => generate("count", options));
        await ends(async (options) => {
            for await (const event of stream("count", options)) continue;
        });
        await ends((options) => made.wait(options));
        await ends((options) => submit("count", { ...options, fetch: () => Promise.reject(new Error("broken")) }));
        say((await made.status()).state);
        """
    )
    assert program.rest() == [True, True, True, True, "running"]
    wait_until(lambda: served.running == 1, "the job alone goes on")
