"""Does it answer better? Ways of thinking side by side, graded by others' graders."""
