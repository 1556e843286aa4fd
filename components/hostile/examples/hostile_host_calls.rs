//! Calls the host without end.

use weir_hostile::attack;

weir_hostile::attack_in_every_role!(attack::flood_host_calls);
