// The unmodified @trigger.dev/sdk 3.3.17 against Runwell, with tasks that are Python.
import assert from "node:assert/strict";
import {
  ApiError,
  AuthenticationError,
  NotFoundError,
  auth,
  batch,
  envvars,
  idempotencyKeys,
  runs,
  schedules,
  tasks,
} from "@trigger.dev/sdk/v3";
import { runAll, test } from "./harness.mjs";

const { PROJECT_REF, PERSONAL_TOKEN } = process.env;
const fast = { pollIntervalMs: 100 };

test("a run is triggered with every option, polled and retrieved", async () => {
  const handle = await tasks.trigger(
    "add",
    { a: 1, b: 2 },
    {
      idempotencyKey: await idempotencyKeys.create("once", { scope: "global" }),
      idempotencyKeyTTL: "1h",
      queue: { name: "from-js", concurrencyLimit: 5 },
      concurrencyKey: "tenant-1",
      maxAttempts: 2,
      tags: ["js", "every-option"],
      metadata: { from: "js" },
      maxDuration: 60,
      machine: "small-1x",
      priority: 3,
      ttl: "10m",
    },
  );
  assert.match(handle.id, /^run_/);
  assert.ok(handle.publicAccessToken);
  const run = await runs.poll(handle.id, fast);
  assert.equal(run.status, "COMPLETED");
  assert.equal(run.output, 3);
  assert.deepEqual(run.payload, { a: 1, b: 2 });
  assert.deepEqual(run.tags, ["every-option", "js"]);
  assert.equal(run.metadata.from, "js");
  assert.equal(run.isSuccess, true);
  assert.ok(run.createdAt instanceof Date);
  assert.ok(run.attempts.length === 1);
});

test("an idempotency key gives the run that there is", async () => {
  const options = { idempotencyKey: await idempotencyKeys.create(["k", "1"], { scope: "global" }) };
  const first = await tasks.trigger("add", { a: 1, b: 1 }, options);
  const second = await tasks.trigger("add", { a: 2, b: 2 }, options);
  assert.equal(first.id, second.id);
});

test("triggerAndPoll gives the output", async () => {
  const run = await tasks.triggerAndPoll("add", { a: 20, b: 22 }, {}, fast);
  assert.equal(run.output, 42);
});

test("a batch of one task", async () => {
  const handle = await tasks.batchTrigger("add", [
    { payload: { a: 1, b: 1 } },
    { payload: { a: 2, b: 2 }, options: { tags: ["second"] } },
  ]);
  assert.match(handle.batchId, /^batch_/);
  assert.equal(handle.runs.length, 2);
  const ended = await Promise.all(handle.runs.map((run) => runs.poll(run.id, fast)));
  assert.deepEqual(
    ended.map((run) => run.output),
    [2, 4],
  );
  assert.deepEqual(ended[1].tags, ["second"]);
  assert.equal(ended[0].batchId ?? handle.batchId, handle.batchId);
});

test("a batch of several tasks", async () => {
  const handle = await batch.trigger([
    { id: "add", payload: { a: 1, b: 2 } },
    { id: "square", payload: 5 },
  ]);
  const ended = await Promise.all(handle.runs.map((run) => runs.poll(run.id, fast)));
  assert.deepEqual(
    ended.map((run) => run.output),
    [3, 25],
  );
});

test("a run that failed tells its error", async () => {
  const handle = await tasks.trigger("fail", "on purpose");
  const run = await runs.poll(handle.id, fast);
  assert.equal(run.status, "FAILED");
  assert.equal(run.isFailed, true);
  assert.match(JSON.stringify(run.error), /on purpose/);
});

test("runs are listed with filters, page by page", async () => {
  for (let number = 0; number < 3; number++) {
    await tasks.trigger("add", { a: number, b: 0 }, { tags: ["listed"], delay: "1h" });
  }
  const page = await runs.list({ tag: "listed", limit: 2 });
  assert.equal(page.data.length, 2);
  assert.equal(page.hasNextPage(), true);
  const next = await page.getNextPage();
  assert.equal(next.data.length, 1);
  const all = [];
  for await (const run of runs.list({ tag: ["listed"], status: ["DELAYED"], limit: 1 })) all.push(run.id);
  assert.equal(all.length, 3);
  assert.equal((await runs.list({ tag: "listed", status: "COMPLETED" })).data.length, 0);
});

test("runs of a whole project are listed with a personal token", async () => {
  await auth.withAuth({ accessToken: PERSONAL_TOKEN }, async () => {
    const page = await runs.list(PROJECT_REF, { env: ["dev"], limit: 2 });
    assert.equal(page.data.length, 2);
    assert.equal(page.data[0].env.name, "dev");
  });
});

test("a delayed run is rescheduled, canceled and replayed", async () => {
  const handle = await tasks.trigger("add", { a: 3, b: 4 }, { delay: "1h" });
  const later = new Date(Date.now() + 7_200_000);
  const moved = await runs.reschedule(handle.id, { delay: later });
  assert.equal(moved.status, "DELAYED");
  assert.equal(moved.delayedUntil.getTime(), later.getTime());
  await runs.cancel(handle.id);
  assert.equal((await runs.retrieve(handle.id)).status, "CANCELED");
  const again = await runs.replay(handle.id);
  assert.notEqual(again.id, handle.id);
  assert.equal((await runs.poll(again.id, fast)).output, 7);
});

test("metadata that a task writes is there", async () => {
  const handle = await tasks.trigger("count-up", 3);
  const run = await runs.poll(handle.id, fast);
  assert.equal(run.metadata.n, 3);
  assert.deepEqual(run.metadata.log, [0, 1, 2]);
  assert.ok(run.tags.includes("counted"));
});

test("a schedule is created, changed, switched, listed and deleted", async () => {
  const made = await schedules.create({
    task: "chaos-scheduled",
    cron: "0 5 1 1 *",
    timezone: "Europe/Berlin",
    externalId: "user_1",
    deduplicationKey: "js-schedule",
  });
  assert.match(made.id, /^sched_/);
  assert.equal(made.timezone, "Europe/Berlin");
  assert.ok(made.nextRun instanceof Date);
  const same = await schedules.create({
    task: "chaos-scheduled",
    cron: "0 6 1 1 *",
    deduplicationKey: "js-schedule",
  });
  assert.equal(same.id, made.id);
  const changed = await schedules.update(made.id, { task: "chaos-scheduled", cron: "0 7 1 1 *" });
  assert.equal(changed.generator.expression, "0 7 1 1 *");
  assert.equal((await schedules.deactivate(made.id)).active, false);
  assert.equal((await schedules.activate(made.id)).active, true);
  assert.equal((await schedules.retrieve(made.id)).id, made.id);
  const listed = [];
  for await (const schedule of schedules.list({ perPage: 1 })) listed.push(schedule.id);
  assert.ok(listed.includes(made.id));
  assert.ok((await schedules.timezones()).timezones.includes("Europe/Berlin"));
  assert.deepEqual(await schedules.del(made.id), { id: made.id });
});

test("environment variables are uploaded, changed and deleted", async () => {
  await envvars.upload(PROJECT_REF, "dev", { variables: { JS_A: "1", JS_B: "2" }, override: true });
  await envvars.create(PROJECT_REF, "dev", { name: "JS_C", value: "3" });
  const listed = await envvars.list(PROJECT_REF, "dev");
  assert.ok(listed.some((one) => one.name === "JS_C" && one.value === "3"));
  // `envvars.update` of this version can't be called: it fails before it asks for anything.
  await envvars.upload(PROJECT_REF, "dev", { variables: { JS_C: "4" }, override: true });
  assert.equal((await envvars.retrieve(PROJECT_REF, "dev", "JS_C")).value, "4");
  for (const name of ["JS_A", "JS_B", "JS_C"]) await envvars.del(PROJECT_REF, "dev", name);
  await assert.rejects(envvars.retrieve(PROJECT_REF, "dev", "JS_C"), NotFoundError);
});

test("a public token reads the run it is for, and no other", async () => {
  const mine = await tasks.trigger("add", { a: 1, b: 1 });
  const other = await tasks.trigger("add", { a: 1, b: 1 });
  const token = await auth.createPublicToken({ scopes: { read: { runs: [mine.id] } }, expirationTime: "1h" });
  await auth.withAuth({ accessToken: token }, async () => {
    assert.equal((await runs.retrieve(mine.id)).id, mine.id);
    await assert.rejects(runs.retrieve(other.id), (error) => error.status === 403);
    await assert.rejects(tasks.trigger("add", { a: 1, b: 1 }), (error) => error.status === 403);
  });
});

test("a handle's own token reads its run", async () => {
  const handle = await tasks.trigger("add", { a: 1, b: 1 });
  await auth.withAuth({ accessToken: handle.publicAccessToken }, async () => {
    assert.equal((await runs.retrieve(handle.id)).id, handle.id);
  });
});

test("a trigger token triggers its task once", async () => {
  const token = await auth.createTriggerPublicToken("add");
  await auth.withAuth({ accessToken: token }, async () => {
    const handle = await tasks.trigger("add", { a: 5, b: 5 });
    assert.match(handle.id, /^run_/);
    await assert.rejects(tasks.trigger("add", { a: 5, b: 5 }), ApiError);
  });
});

test("a run is followed to its end", async () => {
  const handle = await tasks.trigger("wait-a-moment", 0.3);
  const statuses = [];
  let output;
  for await (const run of runs.subscribeToRun(handle.id)) {
    statuses.push(run.status);
    output = run.output;
    // The loop of this version never ends by itself.
    if (run.finishedAt) break;
  }
  assert.equal(statuses.at(-1), "COMPLETED");
  assert.ok(output >= 0.3);
});

test("runs with a tag are followed", async () => {
  const tag = `followed-${Date.now()}`;
  const ended = new Set();
  const subscription = runs.subscribeToRunsWithTag(tag);
  const following = (async () => {
    for await (const run of subscription) {
      if (run.status === "COMPLETED") ended.add(run.id);
      if (ended.size === 2) break;
    }
  })();
  const first = await tasks.trigger("add", { a: 1, b: 1 }, { tags: [tag] });
  const second = await tasks.trigger("add", { a: 1, b: 1 }, { tags: [tag] });
  await following;
  assert.deepEqual(ended, new Set([first.id, second.id]));
});

test("a batch is followed", async () => {
  const handle = await tasks.batchTrigger("add", [
    { payload: { a: 1, b: 1 } },
    { payload: { a: 2, b: 2 } },
  ]);
  const ended = new Set();
  for await (const run of runs.subscribeToBatch(handle.batchId)) {
    if (run.status === "COMPLETED") ended.add(run.id);
    if (ended.size === 2) break;
  }
  assert.equal(ended.size, 2);
});

test("large payloads and outputs travel through the object store", async () => {
  const handle = await tasks.trigger("add", { a: 1, b: 2, padding: "x".repeat(700_000) });
  assert.equal((await runs.poll(handle.id, fast)).output, 3);
  const large = await tasks.trigger("large-output", 700_000);
  const run = await runs.poll(large.id, fast);
  assert.equal(run.output.length, 700_000);
});

test("errors have the classes of the SDK", async () => {
  await assert.rejects(runs.retrieve("run_unknown"), NotFoundError);
  await auth.withAuth({ accessToken: "tr_dev_unknown000000000000000" }, async () => {
    await assert.rejects(runs.retrieve("run_unknown"), AuthenticationError);
  });
  await assert.rejects(
    tasks.trigger("add", { a: 1, b: 1 }, { tags: Array.from({ length: 11 }, (_, n) => `t${n}`) }),
    (error) => error instanceof ApiError && error.status >= 400 && error.status < 500,
  );
});

test("values that a task sends are read by a subscription with streams", async () => {
  const words = ["one", "two\nlines", "three"];
  const handle = await tasks.trigger("say-words", words);
  const read = [];
  let ended;
  // The loop of this SDK doesn't end by itself.
  for await (const part of runs.subscribeToRun(handle.id).withStreams()) {
    if (part.type === "words") read.push(part.chunk);
    else if (part.run.finishedAt) ended = part.run;
    if (ended && read.length >= words.length) break;
  }
  assert.deepEqual(read, words);
  assert.equal(ended.output, 3);
});

await runAll();
