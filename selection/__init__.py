"""Which candidate do we answer with? Pure voters over executed candidates; `selection.voters.VOTERS` names them."""
