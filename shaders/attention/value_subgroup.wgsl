let v4 = subgroupBroadcast(own_v4, j);
