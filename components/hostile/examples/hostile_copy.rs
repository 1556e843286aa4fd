//! Moves nearly all of its memory to and fro.

use weir_hostile::attack;

weir_hostile::in_every_role!(attack::copy);
