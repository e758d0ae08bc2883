-- Replays know what they are a copy of, with the metadata that the original was triggered with.
ALTER TABLE runs
    ADD COLUMN replay_of text COLLATE "C",
    -- How often the metadata was changed; what it was before the first change is kept from then on.
    ADD COLUMN metadata_version integer NOT NULL DEFAULT 0,
    ADD COLUMN original_metadata jsonb;
