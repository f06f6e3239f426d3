// dockerode against the engine at DOCKER_HOST. The image busybox is there.
"use strict";
const assert = require("assert");
const { PassThrough } = require("stream");
const Docker = require("dockerode");
const docker = new Docker({ socketPath: process.env.DOCKER_HOST.replace("unix://", "") });

const text = (stream) => new Promise((done, failed) => {
  const pieces = [];
  stream.on("data", (piece) => pieces.push(piece)).on("end", () => done(Buffer.concat(pieces).toString())).on("error", failed);
});
const followed = (stream) => new Promise((done, failed) => docker.modem.followProgress(stream, (error, lines) => (error ? failed(error) : done(lines))));
const refused = async (status, call) => {
  await assert.rejects(call, (error) => {
    assert.strictEqual(error.statusCode, status, String(error));
    assert.ok(error.json && error.json.message, String(error));
    return true;
  });
};

async function system() {
  assert.strictEqual(String(await docker.ping()), "OK");
  assert.strictEqual((await docker.info()).OSType, "linux");
  assert.ok((await docker.version()).ApiVersion);
  assert.ok(Array.isArray((await docker.df()).Images));
}

async function run() {
  const output = new PassThrough();
  const collected = text(output);
  const [result, container] = await docker.run("busybox", ["sh", "-c", "echo out; exit 4"], output, { Tty: true });
  output.end();
  assert.strictEqual(result.StatusCode, 4);
  assert.ok((await collected).startsWith("out"));
  await container.remove();
}

async function life() {
  const container = await docker.createContainer({ name: "life", Image: "busybox", Cmd: ["sleep", "1000"], Labels: { a: "b" } });
  await container.start();
  await container.start().then(() => assert.fail("started twice"), (error) => assert.strictEqual(error.statusCode, 304));
  assert.strictEqual((await container.inspect()).State.Status, "running");
  assert.deepStrictEqual((await docker.listContainers({ filters: { label: ["a=b"] } })).map((found) => found.Names[0]), ["/life"]);
  assert.ok((await container.top()).Processes.length >= 1);
  assert.ok((await container.stats({ stream: false })).memory_stats.usage > 0);
  await refused(409, () => docker.createContainer({ name: "life", Image: "busybox" }));
  await refused(409, () => container.remove());
  await container.rename({ name: "renamed" });
  await container.pause();
  await container.unpause();
  await container.resize({ h: 10, w: 20 });
  await container.kill();
  assert.strictEqual((await container.wait()).StatusCode, 137);
  await container.remove();
  await refused(404, () => container.inspect());
  await refused(404, () => docker.createContainer({ Image: "nosuch:1" }));
}

async function attach() {
  const container = await docker.createContainer({ Image: "busybox", Cmd: ["cat"], OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true });
  const stream = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  const [out, err] = [new PassThrough(), new PassThrough()];
  container.modem.demuxStream(stream, out, err);
  const collected = text(out);
  stream.on("end", () => out.end());
  await container.start();
  stream.write("through and through");
  stream.end();
  assert.strictEqual(await collected, "through and through");
  assert.strictEqual((await container.wait()).StatusCode, 0);
  const logs = await container.logs({ stdout: true, follow: false });
  assert.ok(logs.toString().includes("through and through"));
  await container.remove();
}

async function execs() {
  const container = await docker.createContainer({ Image: "busybox", Cmd: ["sleep", "1000"] });
  await container.start();
  for (const hijack of [true, false]) {
    const exec = await container.exec({ Cmd: ["sh", "-c", "echo out; echo err >&2; exit 3"], AttachStdout: true, AttachStderr: true });
    const stream = await exec.start({ hijack, stdin: false });
    const [out, err] = [new PassThrough(), new PassThrough()];
    docker.modem.demuxStream(stream, out, err);
    stream.on("end", () => { out.end(); err.end(); });
    assert.deepStrictEqual(await Promise.all([text(out), text(err)]), ["out\n", "err\n"]);
    assert.strictEqual((await exec.inspect()).ExitCode, 3);
  }
  await container.putArchive(await archive("file", "content"), { path: "/tmp" });
  assert.ok((await text(await container.getArchive({ path: "/tmp/file" }))).includes("content"));
  await container.remove({ force: true });
}

// A tar of one file.
async function archive(name, content) {
  const pack = require("tar-stream").pack();
  pack.entry({ name }, content);
  pack.finalize();
  const pieces = [];
  for await (const piece of pack) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function images() {
  const stream = await docker.buildImage(require("stream").Readable.from([await archive("Dockerfile", "FROM busybox\nRUN echo made > /made\n")]), { t: "dockerode:1" });
  const lines = await followed(stream);
  assert.ok(lines.some((line) => (line.stream || "").startsWith("Successfully tagged dockerode:1")));
  const image = docker.getImage("dockerode:1");
  assert.ok((await image.history()).length >= 2);
  await image.tag({ repo: "dockerode", tag: "2" });
  assert.strictEqual((await docker.listImages({ filters: { reference: ["dockerode"] } }))[0].RepoTags.length, 2);
  const saved = await image.get();
  await image.remove();
  await docker.getImage("dockerode:2").remove();
  const loaded = await followed(await docker.loadImage(saved));
  assert.ok(loaded.some((line) => (line.stream || "").includes("dockerode:1")));
  await image.remove();
  await refused(404, () => image.inspect());
  const broken = require("stream").Readable.from([await archive("Dockerfile", "FROM busybox\nRUN exit 6\n")]);
  const failure = (await followed(await docker.buildImage(broken)).catch((error) => [{ error: String(error) }])).pop();
  assert.match(failure.error, /returned a non-zero code: 6/);
}

async function others() {
  const volume = await docker.createVolume({ Name: "dockerode" });
  assert.strictEqual((await volume.inspect()).Name, "dockerode");
  assert.ok((await docker.listVolumes()).Volumes.some((found) => found.Name === "dockerode"));
  await volume.remove();
  const network = await docker.createNetwork({ Name: "dockerode", Labels: { a: "b" } });
  const container = await docker.createContainer({ Image: "busybox", Cmd: ["sleep", "1000"] });
  await network.connect({ Container: container.id, EndpointConfig: { Aliases: ["other"] } });
  await container.start();
  assert.ok((await container.inspect()).NetworkSettings.Networks.dockerode.IPAddress);
  assert.ok((await network.inspect()).Containers[container.id].IPv4Address);
  await network.disconnect({ Container: container.id });
  await container.remove({ force: true });
  await network.remove();
  await refused(404, () => network.inspect());
}

async function events() {
  const stream = await docker.getEvents({ filters: { type: ["container"] } });
  const seen = new Promise((done) => {
    const actions = [];
    let rest = "";
    stream.on("data", (piece) => {
      rest += piece;
      for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
        actions.push(JSON.parse(rest.slice(0, end)).Action);
        rest = rest.slice(end + 1);
      }
      if (actions.includes("destroy")) done(actions);
    });
  });
  const container = await docker.createContainer({ Image: "busybox", Cmd: ["true"] });
  await container.start();
  await container.wait();
  await container.remove();
  const actions = await seen;
  for (const action of ["create", "start", "die", "destroy"]) assert.ok(actions.includes(action), actions.join());
  stream.destroy();
}

(async () => {
  for (const part of [system, run, life, attach, execs, images, others, events]) {
    await part();
    console.log(part.name, "ok");
  }
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
