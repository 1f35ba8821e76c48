"""Minimum cuts: the cheapest way to divide a network into a source side and a sink side.

Dinic's algorithm (E. A. Dinic, 1970): shortest augmenting paths, a whole layer network at a time.
"""

from __future__ import annotations

import math
from collections import deque

UNCUT = math.inf


class Network:
    """A directed network with capacities, between ``source`` and ``sink``.

    Attributes:
        source: The node that flow comes from.
        sink: The node that it goes to.
    """

    def __init__(self) -> None:
        self._edges: list[list[int]] = []
        self._head: list[int] = []
        self._room: list[float] = []
        self.source, self.sink = self.node(), self.node()

    def node(self) -> int:
        """A new node."""
        self._edges.append([])
        return len(self._edges) - 1

    def edge(self, tail: int, head: int, capacity: float) -> None:
        """An edge that costs ``capacity`` if its tail is on the source side and its head is not.

        ``UNCUT`` makes that impossible; edges without capacity are left out.
        """
        if capacity > 0:
            for start, end, room in ((tail, head, capacity), (head, tail, 0.0)):
                self._edges[start].append(len(self._head))
                self._head.append(end)
                self._room.append(room)

    def source_side(self) -> set[int]:
        """The nodes on the source side of the minimum cut with the fewest such nodes."""
        while (levels := self._levels())[self.sink] >= 0:
            at = [0] * len(self._edges)
            while self._augment(levels, at):
                pass
        return {node for node, level in enumerate(levels) if level >= 0}

    def _levels(self) -> list[int]:
        """The distance of each node from the source along edges with room; -1 out of reach."""
        levels = [-1] * len(self._edges)
        levels[self.source] = 0
        queue = deque([self.source])
        while queue:
            node = queue.popleft()
            for edge in self._edges[node]:
                head = self._head[edge]
                if self._room[edge] > 0 and levels[head] < 0:
                    levels[head] = levels[node] + 1
                    queue.append(head)
        return levels

    def _augment(self, levels: list[int], at: list[int]) -> bool:
        """Send flow along one path that descends the levels; says whether there was one.

        ``at`` remembers for each node which edges lead nowhere any more.
        """
        path: list[int] = []
        node = self.source
        while node != self.sink:
            edge = self._descending(node, levels, at)
            if edge is not None:
                path.append(edge)
                node = self._head[edge]
            elif path:
                node = self._head[path.pop() ^ 1]
                at[node] += 1
            else:
                return False
        amount = min(self._room[edge] for edge in path)
        for edge in path:
            self._room[edge] -= amount
            self._room[edge ^ 1] += amount
        return True

    def _descending(self, node: int, levels: list[int], at: list[int]) -> int | None:
        edges = self._edges[node]
        while at[node] < len(edges):
            edge = edges[at[node]]
            if self._room[edge] > 0 and levels[self._head[edge]] == levels[node] + 1:
                return edge
            at[node] += 1
        return None
