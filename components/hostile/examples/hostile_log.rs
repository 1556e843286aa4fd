//! Writes more and longer lines than the log accepts.

use weir_hostile::attack;

weir_hostile::attack_in_every_role!(attack::flood_log);
