//! Loops forever in every call.

use weir_hostile::attack;

weir_hostile::attack_in_every_role!(attack::loop_forever);
