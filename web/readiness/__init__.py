"""Whether a model is awake, as far as web can observe it.

web sees no pods and no processes. It sees answers, and how long they take, and what others report. A state is said only
where something shows it; in doubt it is `pending`: passed on to the model server, nothing heard yet.

| observed | said of the model | said to a request that has no answer |
|---|---|---|
| an answer begins, or is coming in | ready | what its own answer says: queued, then running |
| the last answer is within the idle window | ready, or pending where requests are silent | pending |
| the last answer is older than the idle window | asleep: its pods may be gone | pending, and the model is asked |
| nothing yet, or a connection that broke or was refused | unknown, or pending | pending, and the model is asked |
| a question is silent, or ends as a gateway's 504; no answer here, nor within the idle window | waking | waking |
| a question is answered | ready | pending |
| its own word that it is loading, in an answer or an event | waking, and in which phase | waking |
| a report says asleep (the supervisor's, or that of its endpoints) | asleep | asleep, then waking: it wakes it |
| a report says waking or ready | that | waking, or pending |
| another replica says waking, and it is not ready here | waking | waking |
| another replica is being answered | ready | pending |
| it is answering others here while the request is silent | ready | queued |
| the request is held in web: MAX_IN_FLIGHT, memory for pictures, a job that nobody has claimed | | queued |

Silence alone shows little. Knative's activator holds requests without a word while there is no pod, and also while all
pods are busy; some runtimes send no header before their first token. Hence the question whether it is ready, which a
server that is awake answers at once, and the idle window. Silence while others are answered here is a queue: their pod
is alive, and what holds the request back is that its slots are taken. (That they are answered by a pod which is going,
and the request waits for the next one, only a report can tell, and then it counts more.)

What is not observed stays `pending` until it is:

- The model sleeps earlier than IDLE_SECONDS says, or its idle pod was evicted or killed: the requests after that are
  pending, until they are answered or the idle window has passed. Where a connection broke, nothing is known any more,
  and the next silence is a wake-up.
- A pod that cannot be scheduled: waking, as long as the question is silent and for `wake_seconds` at most.
- All slots are taken by requests of another replica: it is asked when the question begins, and says that it is being
  answered. By requests that no replica of web knows of, as those of a Broker: they look like a wake-up, unless the
  endpoints are watched.
"""
