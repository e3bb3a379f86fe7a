// Scores, ranks and generates from Node: node client.mjs REWARD_TARGET POLICY_TARGET
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const protos = fileURLToPath(new URL("../../../protos", import.meta.url));
const definition = loader.loadSync(["palate/v1/reward_service.proto", "palate/v1/policy_service.proto"], {
  includeDirs: [protos],
  keepCase: true,
  enums: String,
  longs: Number,
  defaults: true, // zeros are not sent: without this, a score of exactly 0 would be undefined
  oneofs: true, // a result says which of its forms it has: result.outcome is "scored" or "error"
});
const { RewardService, PolicyService } = grpc.loadPackageDefinition(definition).palate.v1;
const [rewardTarget, policyTarget] = process.argv.slice(2);
const { PALATE_CA, PALATE_TOKEN } = process.env;
const channel = PALATE_CA ? grpc.credentials.createSsl(readFileSync(PALATE_CA)) : grpc.credentials.createInsecure();
const text = (value) => ({ text: value });
const inTenSeconds = () => ({ deadline: Date.now() + 10_000 });

/** What every call carries. */
const metadata = () => {
  const entries = new grpc.Metadata();
  if (PALATE_TOKEN) entries.set("authorization", `Bearer ${PALATE_TOKEN}`);
  return entries;
};

/** One answer of a unary call, as a promise. */
const call = (client, method, request) =>
  new Promise((resolve, reject) =>
    client[method](request, metadata(), inTenSeconds(), (error, reply) => (error ? reject(error) : resolve(reply))),
  );

async function main() {
  const reward = new RewardService(rewardTarget, channel);
  const prompt = text("What do you think of my business idea?");
  const completions = ["Brilliant!", "Work out the cost per loaf first."].map(text);

  const reply = await call(reward, "score", { items: completions.map((completion) => ({ prompt, completion })) });
  for (const { outcome, scored, error } of reply.results) {
    console.log("score", outcome === "scored" ? scored.score.toFixed(4) : `${error.code}: ${error.message}`);
  }

  const ranked = await call(reward, "rank", { prompt, completions });
  console.log("order", ranked.order.join(" "), "revision", ranked.provenance.revision.slice(0, 12));

  const policy = new PolicyService(policyTarget, channel);
  const request = { prompts: [{ prompt: text("Once upon a time"), seed: 1 }], sampling: { max_new_tokens: 8 } };
  for await (const { completion } of policy.generate(request, metadata(), inTenSeconds())) {
    if (!completion) continue; // the last message is a summary
    console.log("completion", completion.finish_reason, "tokens", completion.token_ids.join(" "));
    console.log("text", completion.text);
  }
}

main().catch((error) => {
  const request = error.metadata?.get("palate-request-id")[0] ?? "none";
  console.error(`${grpc.status[error.code] ?? "error"}: ${error.details ?? error.message} (request ${request})`);
  process.exitCode = 1;
});
