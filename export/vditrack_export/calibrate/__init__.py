"""How much each sign that a held point is seen weighs, for the features of one bundle."""
