#!/usr/bin/env bash
# Scores, ranks and generates with nothing but `buf curl`: client.sh REWARD_TARGET POLICY_TARGET
# The server describes its own methods (reflection), so no .proto file is needed.
set -euo pipefail
reward=$1 policy=$2
buf=${BUF:-$(dirname "$0")/../../../node_modules/.bin/buf}

options=(--protocol grpc)
if [ -n "${PALATE_CA:-}" ]; then
  scheme=https options+=(--cacert "$PALATE_CA")
else
  scheme=http options+=(--http2-prior-knowledge)
fi
if [ -n "${PALATE_TOKEN:-}" ]; then
  options+=(-H "authorization: Bearer $PALATE_TOKEN" --reflect-header "authorization: Bearer $PALATE_TOKEN")
fi

"$buf" curl "${options[@]}" -d '{
  "items": [
    {"prompt": {"text": "What do you think of my business idea?"}, "completion": {"text": "Brilliant!"}},
    {"prompt": {"text": "What do you think of my business idea?"},
     "completion": {"text": "Work out the cost per loaf first."}}
  ]
}' "$scheme://$reward/palate.v1.RewardService/Score"

"$buf" curl "${options[@]}" -d '{
  "prompt": {"text": "What do you think of my business idea?"},
  "completions": [{"text": "Brilliant!"}, {"text": "Work out the cost per loaf first."}]
}' "$scheme://$reward/palate.v1.RewardService/Rank"

"$buf" curl "${options[@]}" -d '{
  "prompts": [{"prompt": {"text": "Once upon a time"}, "seed": 1}],
  "sampling": {"max_new_tokens": 8}
}' "$scheme://$policy/palate.v1.PolicyService/Generate"
