//! Allocates memory without end.

use weir_hostile::attack;

weir_hostile::attack_in_every_role!(attack::exhaust_memory);
