// Scores, ranks and generates from Node: node client.mjs REWARD_TARGET POLICY_TARGET
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const protos = fileURLToPath(new URL("../../../protos", import.meta.url));
const definition = loader.loadSync(["palate/v1/reward_service.proto", "palate/v1/policy_service.proto"], {
  includeDirs: [protos],
  keepCase: true,
  enums: String,
  longs: Number,
});
const { RewardService, PolicyService } = grpc.loadPackageDefinition(definition).palate.v1;
const [rewardTarget, policyTarget] = process.argv.slice(2);
const plaintext = grpc.credentials.createInsecure();
const text = (value) => ({ text: value });
const inTenSeconds = () => ({ deadline: Date.now() + 10_000 });

/** One answer of a unary call, as a promise. */
const call = (client, method, request) =>
  new Promise((resolve, reject) =>
    client[method](request, inTenSeconds(), (error, reply) => (error ? reject(error) : resolve(reply))),
  );

const reward = new RewardService(rewardTarget, plaintext);
const prompt = text("What do you think of my business idea?");
const completions = ["Brilliant!", "Work out the cost per loaf first."].map(text);

const scored = await call(reward, "score", { items: completions.map((completion) => ({ prompt, completion })) });
for (const { scored: good, error } of scored.results) {
  console.log("score", good ? good.score.toFixed(4) : `${error.code}: ${error.message}`);
}

const ranked = await call(reward, "rank", { prompt, completions });
console.log("order", (ranked.order ?? []).join(" "), "revision", ranked.provenance.revision.slice(0, 12));

const policy = new PolicyService(policyTarget, plaintext);
const request = { prompts: [{ prompt: text("Once upon a time"), seed: 1 }], sampling: { max_new_tokens: 8 } };
for await (const { completion, summary } of policy.generate(request, inTenSeconds())) {
  if (completion) console.log("completion", completion.token_ids.length, completion.finish_reason);
  if (summary) console.log("done", summary.completions);
}
