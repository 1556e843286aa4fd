//! Writes more lines, and longer ones, than the log takes.

use weir_hostile::attack;

weir_hostile::in_every_role!(attack::log);
