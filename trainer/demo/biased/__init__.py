"""What biased annotators teach, and what helps: the same pairs, labelled and learnt from in several ways."""
