"""Files that are whole or not there, which of them a run may go on from, when one is written."""
