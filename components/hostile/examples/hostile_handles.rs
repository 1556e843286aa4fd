//! Collects handles and never drops them.

use weir_hostile::attack;

weir_hostile::attack_in_every_role!(attack::leak_handles);
