let k4 = subgroupBroadcast(own_k4, j);
