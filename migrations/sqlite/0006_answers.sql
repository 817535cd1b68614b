-- What a message answers: a question may be answered once. Nothing for other messages.
ALTER TABLE inbox ADD COLUMN answers TEXT;
