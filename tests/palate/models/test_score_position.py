import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from palate.models.score_position import last_token_positions, transformers_score_position

MASKS = st.lists(
    st.lists(st.integers(0, 1), min_size=6, max_size=6).filter(any), min_size=1, max_size=5
)  # any pattern, holes included


@given(MASKS)
def test_last_token_is_the_last_one_in_the_mask(rows: list[list[int]]):
    expected = [max(index for index, bit in enumerate(row) if bit) for row in rows]
    assert last_token_positions(np.array(rows)).tolist() == expected
    assert last_token_positions(torch.tensor(rows)).tolist() == expected


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.one_of(st.none(), st.integers(0, 9)))
def test_transformers_position_is_where_its_own_code_reads(ids: list[int], pad: int | None):
    from types import SimpleNamespace

    from transformers.modeling_layers import GenericForSequenceClassification

    class Positions(torch.nn.Module):
        """A backbone whose hidden state is the position, so that the "score" tells where it was read."""

        def forward(self, input_ids, **_):
            return SimpleNamespace(
                last_hidden_state=torch.arange(input_ids.shape[1]).float().reshape(1, -1, 1),
                past_key_values=None, hidden_states=None, attentions=None,
            )  # fmt: skip

    head = GenericForSequenceClassification.__new__(GenericForSequenceClassification)
    config = SimpleNamespace(pad_token_id=pad, return_dict=True)
    config.get_text_config = lambda: config
    head.__dict__.update(config=config, model=Positions(), score=lambda hidden: hidden)
    read = GenericForSequenceClassification.forward(head, torch.tensor([ids])).logits.item()
    assert transformers_score_position(ids, pad) == read
