"""The programs of the stages. Each imports without torch, and says why where it cannot run."""
