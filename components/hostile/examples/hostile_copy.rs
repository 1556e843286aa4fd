//! Copies nearly all of its memory repeatedly.

use weir_hostile::attack;

weir_hostile::attack_in_every_role!(attack::copy_memory_forever);
