"""Which candidate do we answer with? Pure voters over executed candidates; `selection.builder.VOTERS` names them."""
