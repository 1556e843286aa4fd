-- Keys with which all nodes sign: that of links has the name 'links'.
CREATE TABLE signing_keys (
    name TEXT COLLATE "C" PRIMARY KEY,
    key  BYTEA NOT NULL
);
